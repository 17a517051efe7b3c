"""Two sides of a comparison by eye: what differs in how they were made, and the paired differences
on what they share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.config.decodings import OWN, column_of, decoding_of, place_of, task_of
from harness.errors import UserError
from harness.results.collect import PUBLISHED, differing, find_runs, key_of, read_published, read_record
from harness.results.columns import success_rates
from harness.results.record import Evaluation, RunRecord, engines_of
from harness.results.statistics import Difference, Interval, mean_interval, paired_difference
from harness.results.variance import Array


@dataclass(frozen=True)
class Pair:
    """A label of A beside one of B on a task under one protocol."""

    task: str  # column
    label: str  # `a` where both have it, else `a / b`
    seeds: tuple[str, ...]  # the paired runs: `0`, or `0/3` where two single runs differ in their seed
    a: Interval  # on those runs
    b: Interval
    difference: Difference  # b - a


@dataclass(frozen=True)
class BaselineCheck:
    """A score against the interval of its baseline."""

    task: str
    label: str
    score: float | None  # mean over the run's seeds; None: the run has not completed
    baseline: Interval  # on the same seeds, or on all of the baseline's where none is shared
    reason: str  # empty: inside

    @property
    def ok(self) -> bool:
        """Inside."""
        return not self.reason


def load_side(path: Path) -> list[RunRecord]:
    """The records of a run folder, a method's folder, a comparison folder or a published one.

    In a published folder, which has no folders of runs, `results/tiny_cpu/tropd` and `results/tiny_cpu/tropd/seed0`
    name a row and a run all the same; a row with changed knobs goes by its label.
    """
    if (path / "record.json").is_file():
        return [read_record(path / "record.json")]
    runs = sorted(path.glob("seed*/record.json"))
    if runs:
        return [read_record(run) for run in runs]
    for parent, names in ((path.parent, [path.name]), (path.parent.parent, [path.parent.name, path.name])):
        if not path.exists() and (parent / PUBLISHED).is_file():
            return _select_published(parent, names)
    return [run.record for run in find_runs(path)]


def _select_published(folder: Path, names: Sequence[str]) -> list[RunRecord]:
    records = read_published(folder / PUBLISHED)
    label, seed = names[0], names[1] if len(names) > 1 else None
    chosen = [record for record in records if record.label == label and seed in (None, f"seed{record.seed}")]
    if not chosen:
        known = ", ".join(sorted({record.label for record in records}))
        raise UserError(f"{folder / PUBLISHED} has no run {'/'.join(names)}; its rows: {known}.")
    return chosen


def find_differences(a: Sequence[RunRecord], b: Sequence[RunRecord]) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> the values on both sides, of everything but the scores and costs that differs.

    Settings, engines, versions and hardware are those of each side's runs, listed where they are several; knobs are
    compared label by label, or between the only labels of the two sides.
    """
    left, right = ({key: _one_or_all(values) for key, values in _description(side).items()} for side in (a, b))
    changed = differing(left, right)
    for label_a, label_b in matched_labels(a, b):
        knobs_a = next(record.knobs for record in a if record.label == label_a)
        knobs_b = next(record.knobs for record in b if record.label == label_b)
        prefix = f"knobs of {label_a}" if label_a == label_b else "knobs"
        changed |= {f"{prefix}: {key}": values for key, values in differing(knobs_a, knobs_b).items()}
    return changed


def _description(records: Sequence[RunRecord]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for record in records:
        provenance = record.provenance
        facts = {
            "label": record.label,
            "training_hash": record.training_hash[:12],
            "engine": engines_of([record]),
            **{f"setting.{key}": value for key, value in _flat(record.setting)},
            "commit": f"{str(provenance.get('commit'))[:12]}{' with local changes' if provenance.get('dirty') else ''}",
            "hardware": provenance.get("hardware"),
            "python": provenance.get("python"),
            **{f"versions.{key}": value for key, value in provenance.get("versions", {}).items()},
            **{f"protocol of {e.column}": e.protocol_hash[:12] for e in record.evaluations},
        }
        for key, value in facts.items():
            if value not in found.setdefault(key, []):
                found[key].append(value)
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else ", ".join(sorted(map(str, values)))


def matched_labels(a: Sequence[RunRecord], b: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """The labels that both sides have; the only label of each where they differ."""
    left, right = ({record.label for record in side} for side in (a, b))
    if len(left) == len(right) == 1:
        return [(left.pop(), right.pop())]
    return [(label, label) for label in sorted(left & right)]


def pair_up(a: Sequence[RunRecord], b: Sequence[RunRecord]) -> list[Pair]:
    """Everything that both sides have: per task and label, on the same protocol and seeds (or one run each)."""
    pairs = []
    for label_a, label_b in matched_labels(a, b):
        runs_a, runs_b = _evaluated(a, label_a), _evaluated(b, label_b)
        for task, protocol in sorted(set(runs_a) & set(runs_b)):
            matched = _match_seeds(runs_a[task, protocol], runs_b[task, protocol])
            if matched:
                both = dict(enumerate(run for _, *runs in matched for run in runs))
                pairs.append(_pair(_column((task, protocol), both), label_a, label_b, matched))
    return sorted(pairs, key=lambda pair: (task_of(pair.task), pair.label, place_of(decoding_of(pair.task))))


EvaluationBySeed = dict[int, Evaluation]  # by seed


def _evaluated(records: Sequence[RunRecord], label: str) -> dict[tuple[str, str], EvaluationBySeed]:
    """(task, protocol hash) -> completed evaluations of a label."""
    found: dict[tuple[str, str], EvaluationBySeed] = {}
    for record in sorted(records, key=key_of):
        if record.label == label and record.status == "completed":
            for evaluation in record.evaluations:
                found.setdefault((evaluation.task, evaluation.protocol_hash), {})[record.seed] = evaluation
    return found


def _match_seeds(a: EvaluationBySeed, b: EvaluationBySeed) -> list[tuple[str, Evaluation, Evaluation]]:
    if len(a) == len(b) == 1 and set(a) != set(b):
        (seed_a, run_a), (seed_b, run_b) = next(iter(a.items())), next(iter(b.items()))
        return [(f"{seed_a}/{seed_b}", run_a, run_b)]
    return [(str(seed), a[seed], b[seed]) for seed in sorted(set(a) & set(b))]


def _pair(task: str, label_a: str, label_b: str, matched: list[tuple[str, Evaluation, Evaluation]]) -> Pair:
    scores_a, scores_b = _scores(run for _, run, _ in matched), _scores(run for _, _, run in matched)
    label = label_a if label_a == label_b else f"{label_a} / {label_b}"
    return Pair(
        task=task,
        label=label,
        seeds=tuple(seed for seed, *_ in matched),
        a=mean_interval(scores_a),
        b=mean_interval(scores_b),
        difference=paired_difference(scores_b, scores_a),
    )


def _scores(runs: Iterator[Evaluation]) -> Array:
    return np.array([success_rates(run) for run in runs])


def hold_against(records: Sequence[RunRecord], baseline: Sequence[RunRecord]) -> list[BaselineCheck]:
    """Each score of `records` against the interval of the same row in `baseline`, on the seeds that both have.

    A row of the baseline that `records` lacks altogether is not judged; a run that did not complete is a failure.
    Raises UserError where the two cannot be compared: another Setting, another protocol, or no row in common.
    """
    labels = sorted({record.label for record in records} & {record.label for record in baseline})
    if not labels:
        known = ", ".join(sorted({record.label for record in baseline}))
        raise UserError(f"The baseline has none of these rows; it has: {known}.")
    hashes = {record.training_hash for record in [*records, *baseline]}
    if len(hashes) > 1:
        changed = [key for key in find_differences(baseline, records) if key.startswith("setting.")]
        what = f"differ in {', '.join(changed)}" if changed else "have different training hashes: other code or data"
        raise UserError(f"The baseline is of another Setting: the two {what}; make a baseline under this one.")
    verdicts = []
    for label in labels:
        failed = [r for r in records if r.label == label and r.status != "completed"]
        new, old = _evaluated(records, label), _evaluated(baseline, label)
        _check_protocols(label, new, old)
        for key in sorted(old):
            verdicts.append(_verdict(label, _column(key, old[key]), new.get(key, {}), old[key], failed=failed))
    return [verdict for verdict in verdicts if verdict is not None]


def _check_protocols(
    label: str, new: Mapping[tuple[str, str], EvaluationBySeed], old: Mapping[tuple[str, str], EvaluationBySeed]
) -> None:
    """UserError for a column, or a whole task, that both have and under no protocol in common."""
    shared = {task for task, _ in set(new) & set(old)}
    again = {_column(key, runs) for key, runs in new.items()}
    for key in sorted(set(old) - set(new)):
        column = _column(key, old[key])
        if column in again or (key[0] not in shared and key[0] in {task for task, _ in new}):
            raise UserError(
                f"The baseline of {label} on {column} was made under another protocol (task, data, prompt or "
                "sampling); make a baseline under this one."
            )


def _column(key: tuple[str, str], runs: EvaluationBySeed) -> str:
    """The column of a protocol, by any of its runs that names its decoding."""
    return column_of(key[0], next((e.decoding for e in runs.values() if e.decoding), OWN))


def _verdict(
    label: str, task: str, new: EvaluationBySeed, old: EvaluationBySeed, failed: Sequence[RunRecord]
) -> BaselineCheck | None:
    shared = sorted(set(new) & set(old))
    interval = mean_interval(_scores(old[seed] for seed in shared or sorted(old)))
    if failed:
        reason = " ".join(failed[0].reason.split()) or "did not finish"
        return BaselineCheck(
            task=task, label=label, score=None, baseline=interval, reason=f"seed {failed[0].seed} failed: {reason}"
        )
    if not new:  # the task was not evaluated
        return None
    score = float(np.mean([new[seed].score for seed in shared or sorted(new)]))
    outside = not interval.low <= score <= interval.high
    return BaselineCheck(task=task, label=label, score=score, baseline=interval, reason="outside" if outside else "")
