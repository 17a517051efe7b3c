"""The columns of a table: the scores of a task under one decoding, by method and seed, and their averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.config.decodings import OWN, column_of, decoding_of, in_order, task_of
from harness.results.collect import RunKey
from harness.results.record import Evaluation, is_subset
from harness.results.reference import AVERAGE
from harness.results.variance import Array

BySeed = Mapping[int, tuple[Array, ...]]  # seed -> the scores [I] of each task of the column
Column = Mapping[str, BySeed]  # by label


def build_columns(selected: Mapping[str, Mapping[RunKey, Evaluation]]) -> dict[str, Column]:
    """The scores of every column, and where there are several tasks of AVERAGE over the runs that have all of them."""
    columns: dict[str, Column] = {}
    for name, runs in selected.items():
        columns[name] = _by_label({key: (success_rates(evaluation),) for key, evaluation in runs.items()})
    for name, parts in average_columns(list(selected)).items():
        shared = set.intersection(*(set(selected[part]) for part in parts))
        columns[name] = _by_label({k: tuple(success_rates(selected[p][k]) for p in parts) for k in sorted(shared)})
    return columns


def average_columns(columns: Sequence[str]) -> dict[str, list[str]]:
    """The averages where there are several tasks, and the columns that each is over.

    Under a named decoding: of every task the column of that name, or the only one that it has; no average where a task
    has several others. Without a named decoding there is one, of the tasks' own. A part of a task's problems has no
    share in any.
    """
    by_task: dict[str, dict[str, str]] = {}
    for column in (name for name in columns if not is_subset(task_of(name))):
        by_task.setdefault(task_of(column), {})[decoding_of(column)] = column
    averages: dict[str, list[str]] = {}
    names = {decoding for found in by_task.values() for decoding in found}
    for decoding in in_order(names - {OWN} or names):
        parts = [next(iter(found.values())) if len(found) == 1 else found.get(decoding) for found in by_task.values()]
        if len(by_task) > 1 and all(parts):
            averages[column_of(AVERAGE, decoding)] = [part for part in parts if part is not None]
    return averages


def success_rates(evaluation: Evaluation) -> Array:
    """The share of successes of each problem [I]."""
    return np.array(evaluation.correct) / evaluation.samples


def _by_label(runs: Mapping[RunKey, tuple[Array, ...]]) -> Column:
    column: dict[str, dict[int, tuple[Array, ...]]] = {}
    for (label, seed), scores in runs.items():
        column.setdefault(label, {})[seed] = scores
    return column


def score_matrices(runs: BySeed, seeds: Sequence[int]) -> list[Array]:
    """[S, I] per task of the column, for the given seeds."""
    return [np.array(rows) for rows in zip(*(runs[seed] for seed in seeds), strict=True)]


def title_of(column: str) -> str:
    """A column's name for readers: `arithmetic`, or `arithmetic, greedy`."""
    return ", ".join(filter(None, (task_of(column), decoding_of(column))))
