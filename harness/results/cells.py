"""Finished runs by regime, learning rate and schedule: the cells of a map, and who leads in one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from harness.config.budgets import budget_of
from harness.config.decodings import decoding_of
from harness.errors import UserError
from harness.results.collect import check_comparable, columns_of, load_records, with_names
from harness.results.flops import EQUAL_COST, run_flops, training_seconds
from harness.results.leaderboard import ALPHA, BASELINE
from harness.results.orders import Order
from harness.results.record import Evaluation, RunRecord
from harness.results.statistics import Difference, Interval, holm, mean_interval, paired_difference
from harness.types import UNTRAINED

Cell = tuple[str, str, float]  # regime, schedule of the learning rate, learning rate


Replicate = tuple[str, int]  # student and seed


@dataclass(frozen=True)
class MethodRuns:
    """The replicates of one method in a cell."""

    label: str
    steps: int
    evaluations: Mapping[Replicate, Evaluation]
    training: Mapping[Replicate, Mapping[str, float]]  # RunRecord.training, and its distances to the teacher
    student_tokens: float  # mean over replicates
    flops: float | None  # likewise; None where that of a run is not known
    seconds: float  # likewise, wall clock of the training's phases
    budget: tuple[str, float] | None = None  # Setting.budget; None: `steps` were it


@dataclass(frozen=True)
class Lead:
    """Who leads among some runs, and who cannot be told from the leader."""

    intervals: Mapping[str, Interval]  # by label
    leader: str
    rivals: tuple[str, ...]  # difference to the leader not resolved (all pairs, Holm, 5 %); none: the leader wins


Groups = Mapping[tuple[Cell, int, str], Sequence[RunRecord]]  # by cell, steps and budget


def load_cells(folders: Sequence[Path], column: str) -> dict[Cell, list[MethodRuns]]:
    """All completed runs that were evaluated on the column, by cell. UserError for runs that must not stand in one
    cell.
    """
    return _cells(_completed_runs(folders), column)


def load_decodings(folders: Sequence[Path], task: str) -> dict[str, dict[Cell, list[MethodRuns]]]:
    """`load_cells` for each decoding of the task that a run has, side by side; every run must have them all."""
    groups = _completed_runs(folders)
    columns = columns_of([record for records in groups.values() for record in records], task)
    return {decoding_of(column): _cells(groups, column) for column in columns}


def _completed_runs(folders: Sequence[Path]) -> Groups:
    loaded = with_names([record for folder in folders for record in load_records(folder)])
    groups: dict[tuple[Cell, int, str], list[RunRecord]] = {}
    for record in loaded:
        if record.method not in UNTRAINED and record.status == "completed":
            budget = str(budget_of(record.setting))
            groups.setdefault((cell_of(record), record.setting["steps"], budget), []).append(record)
    if not groups:
        raise UserError("none of the folders holds a completed run of a method; give folders of finished comparisons.")
    return groups


def _cells(groups: Groups, column: str) -> dict[Cell, list[MethodRuns]]:
    cells: dict[Cell, list[MethodRuns]] = {}
    for (cell, steps, _), found in sorted(groups.items()):
        check_comparable(found)
        by_label: dict[str, list[RunRecord]] = {}
        for record in found:
            by_label.setdefault(record.label, []).append(record)
        cells.setdefault(cell, []).extend(runs_of(label, steps, group, column) for label, group in by_label.items())
    return cells


def of_common_methods(cells: Mapping[Cell, Sequence[MethodRuns]]) -> dict[Cell, list[MethodRuns]]:
    """Only the methods that every cell of a regime has, so that a cell in which more was run does not have more
    candidates.
    """
    labels = {
        regime: set.intersection(*({r.label for r in runs} for cell, runs in cells.items() if cell[0] == regime))
        for regime in {cell[0] for cell in cells}
    }
    return {cell: [r for r in runs if r.label in labels[cell[0]]] for cell, runs in cells.items()}


def cell_of(record: RunRecord) -> Cell:
    """A regime is named by its student's folder, which is called alike in every replicate."""
    setting = record.setting
    return Path(setting["student"]).name, setting["lr_schedule"], float(setting["learning_rate"])


def runs_of(label: str, steps: int, records: Sequence[RunRecord], column: str) -> MethodRuns:
    """The replicates of one method in a cell, from their records."""
    evaluations: dict[Replicate, Evaluation] = {}
    training: dict[Replicate, Mapping[str, float]] = {}
    for record in records:
        replicate = (record.setting["student"], record.seed)
        scored = [evaluation for evaluation in record.evaluations if evaluation.column == column]
        if len(scored) != 1:
            raise UserError(
                f"{label} seed {record.seed} has {len(scored)} evaluations on {column}; publish one protocol for all."
            )
        if replicate in evaluations:
            raise UserError(f"{label} of student {replicate[0]} and seed {record.seed} is there twice; give it once.")
        evaluations[replicate], training[replicate] = scored[0], {**record.training, **_distances(record)}
    tokens = float(np.mean([record.counters.student_tokens for record in records]))
    flops = [found for found in map(run_flops, records) if found is not None]
    known = len(flops) == len(records)
    return MethodRuns(
        label=label,
        steps=steps,
        evaluations=evaluations,
        training=training,
        student_tokens=tokens,
        seconds=float(np.mean([training_seconds(record.counters) for record in records])),
        flops=float(np.mean(flops)) if known else None,
        budget=_checked_budget(records),
    )


def _distances(record: RunRecord) -> dict[str, float]:
    """`distance/reverse` and `distance/forward`: means over the held-out prompts, nats per token."""
    found = record.distance
    return {f"distance/{way}": float(np.mean(getattr(found, way))) for way in ("reverse", "forward") if found}


def _checked_budget(records: Sequence[RunRecord]) -> tuple[str, float] | None:
    """What these runs might spend; UserError for one that did not keep to it."""
    budget = budget_of(records[0].setting)
    if budget is None:
        return None
    unit, amount = budget
    for record in records:
        spent = run_flops(record) if unit == "operations" else record.counters.student_tokens
        if spent is not None and not 1 / EQUAL_COST <= spent / amount <= EQUAL_COST:
            raise UserError(
                f"{record.label} seed {record.seed} spent {spent / amount:.3f} of setting.{unit}={amount:g}; run it "
                "again."
            )
    return budget


def matrix(runs: MethodRuns, replicates: Sequence[Replicate]) -> np.ndarray:
    """[S, I]: the share of successes of each problem, for the given replicates."""
    return np.array([np.array(runs.evaluations[r].correct) / runs.evaluations[r].samples for r in replicates])


def find_lead(candidates: Sequence[MethodRuns]) -> Lead:
    """The verdict among runs with different labels; a difference counts as resolved over two or
    more shared replicates.
    """
    intervals = {runs.label: mean_interval(matrix(runs, sorted(runs.evaluations))) for runs in candidates}
    leader = max(sorted(intervals), key=lambda label: intervals[label].estimate)
    resolved = {(pair.a, pair.b) for pair in compare_all(candidates) if pair.resolved}
    others = sorted(set(intervals) - {leader}, key=lambda label: (-intervals[label].estimate, label))
    rivals = tuple(x for x in others if (x, leader) not in resolved and (leader, x) not in resolved)
    return Lead(intervals, leader, rivals)


def compare_all(candidates: Sequence[MethodRuns]) -> list[Order]:
    """Every pair that shares two or more replicates, resolved after Holm's correction over these pairs."""
    protocols = {e.protocol_hash for runs in candidates for e in runs.evaluations.values()}
    if len(protocols) > 1:
        raise UserError(
            f"runs were evaluated under different protocols, {' and '.join(sorted(protocols))}; evaluate them alike."
        )
    pairs: list[tuple[str, str, Difference]] = []
    for a, b in combinations(sorted(candidates, key=lambda runs: runs.label), 2):
        shared = sorted(set(a.evaluations) & set(b.evaluations))
        if len(shared) > 1:
            pairs.append((a.label, b.label, paired_difference(matrix(a, shared), matrix(b, shared))))
    adjusted = holm([difference.p_value for *_, difference in pairs])
    return [
        Order(a, b, difference.estimate, resolved=p <= ALPHA)
        for (a, b, difference), p in zip(pairs, adjusted, strict=True)
    ]


def at_equal_steps(runs: Sequence[MethodRuns]) -> list[MethodRuns]:
    """The runs of the number of steps that most methods have, the smaller of two; another budget is none."""
    counts = Counter(r.steps for r in runs if r.budget is None)
    steps = min(counts, key=lambda n: (-counts[n], n), default=None)
    return [r for r in runs if r.budget is None and r.steps == steps]


def of_budget(runs: Sequence[MethodRuns], unit: str) -> list[MethodRuns]:
    """The runs that had the budget of this unit that most methods have; the smaller one of two.

    All of them take part: a method that is cheaper has made more steps, and a dearer one fewer.
    """
    counts = Counter(r.budget for r in runs if r.budget is not None and r.budget[0] == unit)
    budget = min(counts, key=lambda n: (-counts[n], n), default=None)
    return [r for r in runs if budget is not None and r.budget == budget]


def main_runs(runs: Sequence[MethodRuns]) -> list[MethodRuns]:
    """Those of equal steps; where there are none, those of another budget."""
    return at_equal_steps(runs) or of_budget(runs, "operations") or of_budget(runs, "student_tokens")


def at_equal_cost(runs: Sequence[MethodRuns], cost: Callable[[MethodRuns], float | None]) -> list[MethodRuns]:
    """Of every method the longest runs that cost no more than OPD's at equal steps; none without OPD or a known cost.
    Runs of another budget than of steps are none of them.

    So a method that gets by with less is judged by what it has, unless runs of more steps are among the folders; and a
    method that costs more has no place, unless runs of fewer steps are.
    """
    budget = next((cost(r) for r in at_equal_steps(runs) if r.label == BASELINE), None)
    if budget is None:
        return []
    chosen: dict[str, MethodRuns] = {}
    for r in sorted(runs, key=lambda r: r.steps):
        spent = cost(r) if r.budget is None else None
        if spent is not None and spent <= EQUAL_COST * budget:
            chosen[r.label] = r
    return list(chosen.values())


def differences_to_opd(table: Mapping[str, MethodRuns]) -> dict[str, Difference]:
    """Of a cell's runs by label: the difference to OPD's on the replicates that both have, if two or more."""
    differences: dict[str, Difference] = {}
    for label, runs in table.items():
        shared = sorted(set(runs.evaluations) & set(table[BASELINE].evaluations)) if BASELINE in table else []
        if label != BASELINE and len(shared) > 1:
            differences[label] = paired_difference(matrix(runs, shared), matrix(table[BASELINE], shared))
    return differences
