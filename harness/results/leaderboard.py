"""The table of a comparison: a row per method, with intervals, paired differences to OPD, ranks, cost, and the failed
runs.

Everything here is a pure function of the records and the published rows: the same ones give the same bytes.

A column is a task under one decoding, or the average of all tasks with equal weight where there are several; each gets
the same statistics. Rows are ordered by one decoding, which the table names; those of one method under several knobs
stand together, where the best of them is. Rank interval of a method: 1 + the number of methods that are resolved to be
better, to their number less those resolved to be worse (all pairs of the column, Holm-corrected: the true ranks lie in
all intervals at once with 95 % confidence; Al Mohamad, Goeman and van Zwet, Biometrical Journal 64, 2022).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from harness.config.decodings import ORDER_BY, OWN, column_of, in_order, ordering
from harness.errors import UserError
from harness.results.collect import Protocols, RunKey, check_comparable, select_evaluations
from harness.results.columns import BySeed, Column, build_columns, score_matrices
from harness.results.cost import Cost, mean_cost
from harness.results.distance import DistanceTable, build_distances
from harness.results.record import Evaluation, RunRecord, engines_of, methods_together
from harness.results.reference import AVERAGE, ReferenceRow
from harness.results.statistics import (
    Difference,
    Interval,
    holm,
    mean_interval,
    paired_difference,
    pass_at_k,
)
from harness.types import UNTRAINED

BASELINE = "opd"  # the label that every row is compared with
ALPHA = 0.05  # family-wise error of a marked winner, over all pairs of methods of a task
_DECIMALS = 9  # of numbers in leaderboard.json: finer than any score, coarser than the last bits of another machine


@dataclass(frozen=True)
class Score:
    """A method on a task, or on the average of the tasks."""

    interval: Interval  # in [0, 1]
    seeds: tuple[int, ...]  # evaluated
    difference: Difference | None  # to OPD on the seeds that both have; None for OPD itself and without such seeds
    difference_seeds: tuple[int, ...]
    truncated_frac: float  # mean over seeds of the share of samples that hit the length limit
    pass_at_k: Interval | None = None  # k = the samples of the task; None: one sample, or an average
    maj_at_k: Interval | None = None  # likewise; None also where the answers were not voted on
    ranks: tuple[int, int] | None = None  # best and worst, among the methods with a score; None: not a method


@dataclass(frozen=True)
class Row:
    """The completed runs of one label."""

    label: str
    method: str
    seeds: tuple[int, ...]  # completed
    missing_seeds: tuple[int, ...]  # that other methods were started on, and this one did not complete; trained only
    scores: dict[str, Score]  # by column, averages of decodings included; a column without an evaluation is absent
    average: Score | None  # on the seeds that have every task; None: none has, or there is one task, or decodings
    cost: Cost

    def score(self, column: str) -> Score | None:
        """Of a column, the average too."""
        return self.average if column == AVERAGE else self.scores.get(column)


@dataclass(frozen=True)
class FailedRun:
    """A run without a result."""

    label: str
    seed: int
    status: str  # "failed" | "started"
    reason: str


@dataclass(frozen=True)
class Task:
    """What the scores of a column are comparable under."""

    name: str
    protocol_hash: str
    problems: int
    samples: int
    grader: str | None = None  # strict | official, of a task that both grade; None: it has one
    graders_differ: float | None = None  # share of all answers on which the two do
    decoding: str = OWN

    @property
    def column(self) -> str:
        """The name of its column."""
        return column_of(self.name, self.decoding)


@dataclass(frozen=True)
class Comparison:
    """Two methods on a task, a - b."""

    task: str  # column
    a: str
    b: str
    seeds: tuple[int, ...]  # that both have
    difference: Difference
    adjusted_p_value: float  # Holm's, over the pairs of this column

    @property
    def resolved(self) -> bool:
        """Whether the difference is over two or more seeds and stands after Holm's correction."""
        return len(self.seeds) > 1 and self.adjusted_p_value <= ALPHA


@dataclass(frozen=True)
class Leaderboard:
    """Everything that is printed or written."""

    setting: str
    training_hash: str  # several where replicates have students of their own
    engine: str
    tasks: tuple[Task, ...]  # a task's decodings side by side
    seeds: tuple[int, ...]  # that any method was started on
    rows: tuple[Row, ...]  # student, methods by score, teacher
    failed: tuple[FailedRun, ...]
    comparisons: tuple[Comparison, ...]
    winners: dict[str, str | None]  # by column, averages included
    published: tuple[ReferenceRow, ...]  # cells of other people's tables, to be shown apart
    commits: tuple[str, ...]
    hardware: tuple[str, ...]
    command: str  # that made it
    distance: DistanceTable | None = None  # to the teacher; None: no run was measured
    order_by: str = OWN  # the decoding that rows are ordered by; "": there is one alone

    @property
    def decodings(self) -> list[str]:
        """The decodings of its columns, side by side; none where every task has its own alone."""
        found = {task.decoding for task in self.tasks}
        return [] if found <= {OWN} else in_order(found)

    @property
    def order(self) -> str:
        """How its rows are ordered, as a sentence; empty where that needs none."""
        methods = [row.method for row in self.rows]
        together = ", those of one method together" if len(set(methods)) < len(methods) else ""
        decoding = f" by {self.order_by}" if len(self.decodings) > 1 else ""
        return f"Rows are ordered{decoding or ' by score'}{together}." if decoding or together else ""


def build_leaderboard(
    records: Sequence[RunRecord],
    command: str,
    protocols: Protocols | None = None,
    published: Sequence[ReferenceRow] = (),
    order_by: str = ORDER_BY,
) -> Leaderboard:
    """The table of `records`; raises UserError for records that must not stand in one table.

    Args:
        records: of one comparison, finished or not.
        command: what the reader can type to make the table again.
        protocols: column -> protocol hash, needed only where a task was evaluated under several of one name.
        published: cells to show in a block of their own.
        order_by: of several decodings the one that rows are ordered by; a task without it counts with its first.
    """
    if not records:
        raise UserError("A leaderboard needs at least one run record; run a comparison first.")
    check_comparable(records)
    records = sorted(records, key=lambda record: (record.label, record.seed))
    selected = select_evaluations(records, protocols)
    columns = build_columns(selected)
    trained = [record for record in records if record.method not in UNTRAINED]
    methods = {record.label for record in trained}
    seeds = tuple(sorted({record.seed for record in trained or records}))
    comparisons = [pair for name, column in columns.items() for pair in _compare_all(name, column, methods)]
    labels = sorted({record.label for record in records if record.status == "completed"})
    rows = [_build_row(label, records, seeds, columns, selected=selected) for label in labels]
    rows = [_with_ranks(row, comparisons, columns) for row in rows]
    provenance = [record.provenance for record in records if record.provenance]
    tasks = tuple(_describe_task(runs) for runs in selected.values())
    decodings = {task.decoding for task in tasks}
    if order_by not in {ORDER_BY, *decodings}:
        known = ", ".join(filter(None, in_order(decodings))) or "none"
        raise UserError(f"The table cannot be ordered by {order_by!r}: no task was decoded so; known: {known}.")
    first = _ordering_columns(tasks, order_by)
    return Leaderboard(
        setting=str(records[0].setting.get("name", "unnamed")),
        training_hash=", ".join(_distinct(record.training_hash for record in records)),
        engine=engines_of(records),
        tasks=tasks,
        seeds=seeds,
        rows=tuple(methods_together(sorted(rows, key=lambda row: _order(row, first)), lambda row: row.method)),
        failed=tuple(_describe_failure(record) for record in records if record.status != "completed"),
        comparisons=tuple(comparisons),
        winners={name: _find_winner(comparisons, name, methods) for name in columns},
        published=tuple(published),
        commits=_distinct(_commit(entry) for entry in provenance),
        hardware=_distinct(str(entry.get("hardware", "unknown")) for entry in provenance),
        command=command,
        distance=build_distances(records, BASELINE),
        order_by=OWN if decodings <= {OWN} else ordering(decodings, order_by),
    )


def _ordering_columns(tasks: Sequence[Task], order_by: str) -> list[str]:
    """Of every task the column that rows are ordered by."""
    found = {task.name: {other.decoding for other in tasks if other.name == task.name} for task in tasks}
    return [column_of(name, ordering(decodings, order_by)) for name, decodings in found.items()]


def _build_row(
    label: str,
    records: Sequence[RunRecord],
    all_seeds: tuple[int, ...],
    columns: Mapping[str, Column],
    selected: Mapping[str, Mapping[RunKey, Evaluation]],
) -> Row:
    runs = [record for record in records if record.label == label and record.status == "completed"]
    seeds = tuple(record.seed for record in runs)
    method = runs[0].method
    missing = () if method in UNTRAINED else tuple(seed for seed in all_seeds if seed not in seeds)
    scores = {name: _score(label, column, selected.get(name)) for name, column in columns.items() if label in column}
    average = scores.pop(AVERAGE, None)
    return Row(
        label=label,
        method=method,
        seeds=seeds,
        missing_seeds=missing,
        scores=scores,
        average=average,
        cost=mean_cost(runs),
    )


def _score(label: str, column: Column, evaluations: Mapping[RunKey, Evaluation] | None) -> Score:
    """`evaluations` is None for the average."""
    seeds = tuple(sorted(column[label]))
    difference, shared = (None, ()) if label == BASELINE else _difference(column[label], column.get(BASELINE, {}))
    interval = mean_interval(score_matrices(column[label], seeds))
    if evaluations is None:
        return Score(interval, seeds, difference, shared, truncated_frac=0.0)
    runs = [evaluations[label, seed] for seed in seeds]
    k = runs[0].samples
    passed = mean_interval(pass_at_k([run.correct for run in runs], k, k)) if k > 1 else None
    votes = [run.majority for run in runs if run.majority is not None]
    voted = mean_interval(np.array(votes, dtype=float)) if k > 1 and len(votes) == len(runs) else None
    truncated = float(np.mean([run.truncated_frac for run in runs]))
    return Score(
        interval=interval,
        seeds=seeds,
        difference=difference,
        difference_seeds=shared,
        truncated_frac=truncated,
        pass_at_k=passed,
        maj_at_k=voted,
    )


def _difference(a: BySeed, b: BySeed) -> tuple[Difference | None, tuple[int, ...]]:
    shared = tuple(sorted(set(a) & set(b)))
    if not shared:
        return None, ()
    return paired_difference(score_matrices(a, shared), score_matrices(b, shared)), shared


def _order(row: Row, columns: Sequence[str]) -> tuple[int, int, float, str]:
    """The student, the methods by their mean score over `columns` (those with one missing below), the teacher."""
    block = {"student": 0, "teacher": 2}.get(row.method, 1)
    scores = [score.interval.estimate for column in columns if (score := row.scores.get(column))]
    return block, len(columns) - len(scores), -float(np.mean(scores)) if scores else 0.0, row.label


def _describe_task(runs: Mapping[RunKey, Evaluation]) -> Task:
    example = next(iter(runs.values()))
    design = example.task, example.protocol_hash, example.problems, example.samples
    if "official_grader" not in example.metrics:
        return Task(*design, decoding=example.decoding)
    differ = [run.metrics["graders_differ"] for run in runs.values() if "graders_differ" in run.metrics]
    grader = "official" if example.metrics["official_grader"] else "strict"
    return Task(*design, grader, float(np.mean(differ)), decoding=example.decoding)


def _describe_failure(record: RunRecord) -> FailedRun:
    reason = " ".join(record.reason.split()) or "no reason was recorded"
    if record.status == "started":
        reason = f"did not finish (started {record.started_at or 'at an unknown time'})"
    return FailedRun(record.label, record.seed, record.status, reason)


def _compare_all(task: str, column: Column, methods: set[str]) -> list[Comparison]:
    pairs = []
    for a, b in combinations(sorted(methods & set(column)), 2):
        difference, seeds = _difference(column[a], column[b])
        if difference is not None:
            pairs.append((a, b, seeds, difference))
    adjusted = holm([difference.p_value for *_, difference in pairs])
    return [Comparison(task, *pair, p_value) for pair, p_value in zip(pairs, adjusted, strict=True)]


def _resolved(comparisons: Sequence[Comparison], task: str) -> list[tuple[str, str]]:
    """(better, worse) for each pair of the column whose difference is resolved."""
    return [
        (pair.a, pair.b) if pair.difference.estimate > 0 else (pair.b, pair.a)
        for pair in comparisons
        if pair.task == task and pair.resolved
    ]


def _find_winner(comparisons: Sequence[Comparison], task: str, methods: set[str]) -> str | None:
    """The method that is resolved to be better than every other.

    A method without a score is not beaten: no winner stands in a table that is not whole.
    """
    resolved = _resolved(comparisons, task)
    beaten = {label: {worse for better, worse in resolved if better == label} for label in methods}
    return next((label for label in methods if len(methods) > 1 and beaten[label] == methods - {label}), None)


def _with_ranks(row: Row, comparisons: Sequence[Comparison], columns: Mapping[str, Column]) -> Row:
    if row.method in UNTRAINED:
        return row

    def ranked(name: str, score: Score) -> Score:
        resolved = _resolved(comparisons, name)
        better = sum(worse == row.label for _, worse in resolved)
        worse = sum(better == row.label for better, _ in resolved)
        methods = len(set(columns[name]) - set(UNTRAINED))
        return dataclasses.replace(score, ranks=(1 + better, methods - worse))

    scores = {name: ranked(name, score) for name, score in row.scores.items()}
    return dataclasses.replace(row, scores=scores, average=row.average and ranked(AVERAGE, row.average))


def _commit(provenance: Mapping[str, Any]) -> str:
    commit = provenance.get("commit")
    return f"{str(commit)[:12]}{' with local changes' if provenance.get('dirty') else ''}" if commit else "unknown"


def _distinct(values: Any) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


def leaderboard_to_dict(board: Leaderboard) -> dict[str, Any]:
    """The content of leaderboard.json."""
    content: dict[str, Any] = _rounded(dataclasses.asdict(board))
    if content["distance"] is None:
        del content["distance"]
    for task in content["tasks"]:
        if task["grader"] is None:
            del task["grader"], task["graders_differ"]
        if not task["decoding"]:
            del task["decoding"]
    if not content["order_by"]:
        del content["order_by"]
    for row in content["rows"]:
        for score in filter(None, [*row["scores"].values(), row["average"]]):
            score["interval"]["estimand"] = _estimand(score["seeds"])
    for cell, row in zip(content["published"], board.published, strict=True):
        cell["standard_error"] = _rounded(row.standard_error)
    return content


def _estimand(seeds: Sequence[int]) -> str:
    return Interval(estimate=0, low=0, high=0, standard_error=0, df=0, seeds=len(seeds), problems=1).estimand


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DECIMALS) + 0.0  # -0.0 becomes 0.0
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return value
