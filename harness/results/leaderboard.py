"""The table of a comparison: a row per method, with intervals, paired differences to OPD, cost, and the failed runs.

Everything here is a pure function of the records: the same records give the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.results.collect import Protocols, RunKey, check_comparable, select_evaluations
from harness.results.record import UNTRAINED, Counters, Evaluation, RunRecord
from harness.results.statistics import Difference, Interval, holm, mean_interval, paired_difference

BASELINE = "opd"  # the label that every row is compared with
ALPHA = 0.05  # family-wise error of a marked winner, over all pairs of methods of a task
_DECIMALS = 9  # of numbers in leaderboard.json: finer than any score, coarser than the last bits of another machine

BySeed = Mapping[int, Evaluation]


@dataclass(frozen=True)
class Score:
    """A method on a task."""

    interval: Interval  # in [0, 1]
    seeds: tuple[int, ...]  # evaluated
    difference: Difference | None  # to OPD on the seeds that both have; None for OPD itself and without such seeds
    difference_seeds: tuple[int, ...]
    truncated_frac: float  # mean over seeds of the share of samples that hit the length limit


@dataclass(frozen=True)
class Cost:
    """What a run cost: the mean over the row's completed runs, peak memory the maximum."""

    student_tokens: float
    teacher_tokens: float
    scored_tokens: float
    rollout_s: float
    scoring_s: float
    update_s: float
    evaluation_s: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class Row:
    """The completed runs of one label."""

    label: str
    method: str
    seeds: tuple[int, ...]  # completed
    missing_seeds: tuple[int, ...]  # that other methods were started on, and this one did not complete; trained only
    scores: dict[str, Score]  # by task; a task without an evaluation is absent
    cost: Cost


@dataclass(frozen=True)
class FailedRun:
    """A run without a result."""

    label: str
    seed: int
    status: str  # "failed" | "started"
    reason: str


@dataclass(frozen=True)
class Task:
    """What the scores of a task are comparable under."""

    name: str
    protocol_hash: str
    problems: int
    samples: int


@dataclass(frozen=True)
class Comparison:
    """Two methods on a task, a - b."""

    task: str
    a: str
    b: str
    seeds: tuple[int, ...]  # that both have
    difference: Difference
    adjusted_p_value: float  # Holm's, over the pairs of this task


@dataclass(frozen=True)
class Leaderboard:
    """Everything that is printed or written."""

    setting: str
    training_hash: str
    engine: str
    tasks: tuple[Task, ...]
    seeds: tuple[int, ...]  # that any method was started on
    rows: tuple[Row, ...]  # student, methods by score, teacher
    failed: tuple[FailedRun, ...]
    comparisons: tuple[Comparison, ...]
    winners: dict[str, str | None]  # by task
    commits: tuple[str, ...]
    hardware: tuple[str, ...]
    command: str  # that made it


def build_leaderboard(records: Sequence[RunRecord], command: str, protocols: Protocols | None = None) -> Leaderboard:
    """The table of `records`; raises UserError for records that must not stand in one table.

    Args:
        records: of one comparison, finished or not.
        command: what the reader can type to make the table again.
        protocols: task -> protocol hash, needed only where a task was evaluated under several.
    """
    if not records:
        raise UserError("A leaderboard needs at least one run record; run a comparison first.")
    check_comparable(records)
    records = sorted(records, key=lambda record: (record.label, record.seed))
    selected = select_evaluations(records, protocols)
    evaluations = {task: _by_label(runs) for task, runs in selected.items()}
    trained = [record for record in records if record.method not in UNTRAINED]
    seeds = tuple(sorted({record.seed for record in trained or records}))
    labels = sorted({record.label for record in records if record.status == "completed"})
    rows = [_build_row(label, records, seeds, evaluations) for label in labels]
    methods = {record.label for record in trained}
    comparisons = [pair for task in evaluations for pair in _compare_all(task, evaluations[task], methods)]
    provenance = [record.provenance for record in records if record.provenance]
    return Leaderboard(
        setting=str(records[0].setting.get("name", "unnamed")),
        training_hash=records[0].training_hash,
        engine=records[0].engine,
        tasks=tuple(_describe_task(runs) for runs in selected.values()),
        seeds=seeds,
        rows=tuple(sorted(rows, key=lambda row: _order(row, len(evaluations)))),
        failed=tuple(_describe_failure(record) for record in records if record.status != "completed"),
        comparisons=tuple(comparisons),
        winners={task: _find_winner(comparisons, task, methods) for task in evaluations},
        commits=_distinct(_commit(entry) for entry in provenance),
        hardware=_distinct(str(entry.get("hardware", "unknown")) for entry in provenance),
        command=command,
    )


def score_matrix(runs: BySeed, seeds: Sequence[int]) -> np.ndarray:
    """[S, I]: the share of successes of each problem, for the given seeds."""
    return np.array([np.array(runs[seed].correct) / runs[seed].samples for seed in seeds])


def _by_label(runs: Mapping[RunKey, Evaluation]) -> dict[str, dict[int, Evaluation]]:
    by_label: dict[str, dict[int, Evaluation]] = {}
    for (label, seed), evaluation in runs.items():
        by_label.setdefault(label, {})[seed] = evaluation
    return by_label


def _build_row(
    label: str,
    records: Sequence[RunRecord],
    all_seeds: tuple[int, ...],
    evaluations: Mapping[str, Mapping[str, BySeed]],
) -> Row:
    runs = [record for record in records if record.label == label and record.status == "completed"]
    seeds = tuple(record.seed for record in runs)
    method = runs[0].method
    missing = () if method in UNTRAINED else tuple(seed for seed in all_seeds if seed not in seeds)
    scores = {task: _score(label, by_label) for task, by_label in evaluations.items() if label in by_label}
    return Row(label, method, seeds, missing, scores, _mean_cost([record.counters for record in runs]))


def _score(label: str, by_label: Mapping[str, BySeed]) -> Score:
    runs = by_label[label]
    seeds = tuple(sorted(runs))
    difference, shared = (None, ()) if label == BASELINE else _difference(runs, by_label.get(BASELINE, {}))
    truncated = float(np.mean([runs[seed].truncated_frac for seed in seeds]))
    return Score(mean_interval(score_matrix(runs, seeds)), seeds, difference, shared, truncated)


def _difference(a: BySeed, b: BySeed) -> tuple[Difference | None, tuple[int, ...]]:
    shared = tuple(sorted(set(a) & set(b)))
    if not shared:
        return None, ()
    return paired_difference(score_matrix(a, shared), score_matrix(b, shared)), shared


def _mean_cost(counters: Sequence[Counters]) -> Cost:
    means = {
        field.name: float(np.mean([getattr(counter, field.name) for counter in counters]))
        for field in dataclasses.fields(Cost)
        if field.name != "peak_memory_bytes"
    }
    return Cost(**means, peak_memory_bytes=max(counter.peak_memory_bytes for counter in counters))


def _order(row: Row, tasks: int) -> tuple[int, int, float, str]:
    """The student, the methods by their mean score over tasks (those with a task missing below), the teacher."""
    block = {"student": 0, "teacher": 2}.get(row.method, 1)
    scores = [score.interval.estimate for score in row.scores.values()]
    return block, tasks - len(scores), -float(np.mean(scores)) if scores else 0.0, row.label


def _describe_task(runs: Mapping[RunKey, Evaluation]) -> Task:
    example = next(iter(runs.values()))
    return Task(example.task, example.protocol_hash, example.problems, example.samples)


def _describe_failure(record: RunRecord) -> FailedRun:
    reason = " ".join(record.reason.split()) or "no reason was recorded"
    if record.status == "started":
        reason = f"did not finish (started {record.started_at or 'at an unknown time'})"
    return FailedRun(record.label, record.seed, record.status, reason)


def _compare_all(task: str, by_label: Mapping[str, BySeed], methods: set[str]) -> list[Comparison]:
    pairs = []
    for a, b in combinations(sorted(methods & set(by_label)), 2):
        difference, seeds = _difference(by_label[a], by_label[b])
        if difference is not None:
            pairs.append((a, b, seeds, difference))
    adjusted = holm([difference.p_value for *_, difference in pairs])
    return [Comparison(task, *pair, p_value) for pair, p_value in zip(pairs, adjusted, strict=True)]


def _find_winner(comparisons: Sequence[Comparison], task: str, methods: set[str]) -> str | None:
    """The method that is better than every other, each difference over two or more seeds and resolved after Holm.

    A method without a score is not beaten: no winner stands in a table that is not whole.
    """
    beaten: dict[str, set[str]] = {label: set() for label in methods}
    for pair in comparisons:
        if pair.task == task and len(pair.seeds) > 1 and pair.adjusted_p_value <= ALPHA:
            better, worse = (pair.a, pair.b) if pair.difference.estimate > 0 else (pair.b, pair.a)
            beaten[better].add(worse)
    return next((label for label in methods if len(methods) > 1 and beaten[label] == methods - {label}), None)


def _commit(provenance: Mapping[str, Any]) -> str:
    commit = provenance.get("commit")
    return f"{str(commit)[:12]}{' with local changes' if provenance.get('dirty') else ''}" if commit else "unknown"


def _distinct(values: Any) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


def leaderboard_to_dict(board: Leaderboard) -> dict[str, Any]:
    """The content of leaderboard.json."""
    content: dict[str, Any] = _rounded(dataclasses.asdict(board))
    for row in content["rows"]:
        for score in row["scores"].values():
            score["interval"]["estimand"] = _estimand(score["seeds"])
    return content


def _estimand(seeds: Sequence[int]) -> str:
    return Interval(0, 0, 0, 0, 0, len(seeds), 1).estimand


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DECIMALS) + 0.0  # -0.0 becomes 0.0
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return value
