"""The evaluators themselves, tried on public models: our score beside the published one.

Both are drawn on the same problems, so that the spread over problems does not excuse a difference; what does is the
spread over repeats. With s of k samples right on a problem, the variance of its mean is estimated by
(s/k)(1 - s/k)/(k - 1); with one sample a problem nothing is known of it, and the binomial variance of the whole score,
which is never smaller, stands in. The published run is taken to have the spread of ours (its samples are not public).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.settings import strict
from harness.errors import UserError
from harness.results.record import Evaluation
from harness.results.reference import ReferenceRow, load_reference

Z = 1.959963984540054  # of a two-sided 95 % interval


@dataclass(frozen=True)
class ValidationEntry:
    """A public model whose score somebody printed; an entry of `validate` in
    conf/experiment/validate_evaluators.yaml.
    """

    checkpoint: str
    revision: str | None
    evaluation: str  # protocol, conf/evaluation/
    tasks: list[str]
    table: str  # of results/reference/
    row: str  # label in that table


@dataclass(frozen=True)
class ValidatedTask:
    """One task of an entry, scored or not."""

    entry: ValidationEntry
    task: str
    published: ReferenceRow
    ours: Evaluation | None  # None: not scored
    reason: str = ""  # why not


def entries_of(raw: Any) -> list[ValidationEntry]:
    """The entries of `validate`, checked against the published tables; UserError names the entry."""
    if not isinstance(raw, list):
        raise UserError("validate: expected a list of entries, see conf/experiment/validate_evaluators.yaml.")
    entries = [strict(ValidationEntry, entry, f"validate[{index}]") for index, entry in enumerate(raw)]
    for index, entry in enumerate(entries):
        known = published_scores(entry)
        if missing := [task for task in entry.tasks if task not in known]:
            raise UserError(
                f"validate[{index}]: {entry.table} of results/reference has no {missing[0]} in a row {entry.row!r}."
            )
    return entries


def published_scores(entry: ValidationEntry) -> dict[str, ReferenceRow]:
    """The published cells of an entry by task."""
    return {row.benchmark: row for row in load_reference() if (row.table, row.label) == (entry.table, entry.row)}


def repeat_standard_error(correct: Sequence[int], samples: int) -> float:
    """Standard error of the score over repeats of the same problems, a share.

    Args:
        correct: right samples of each problem. samples: drawn of each.
    """
    problems = len(correct)
    if samples == 1:
        mean = sum(correct) / problems
        return math.sqrt(mean * (1 - mean) / problems)
    shares = [count / samples for count in correct]
    return math.sqrt(sum(p * (1 - p) / (samples - 1) for p in shares)) / problems


def largest_difference(ours: Evaluation) -> float:
    """How far, in points of percent, two evaluations of one model may differ by chance of their samples (95 %)."""
    return 100 * Z * math.sqrt(2) * repeat_standard_error(ours.correct, ours.samples)


def cut_percent(correct: int, total: int) -> str:
    """A share in percent with its decimals cut off after the second, not rounded, in whole numbers: 350 of 960 is
    36.45.
    """
    hundredths = 10_000 * correct // total
    return f"{hundredths // 100}.{hundredths % 100:02d}"


def summarise(outcomes: Sequence[ValidatedTask]) -> Mapping[str, int]:
    """How many were scored, and how many of those are within chance of the published score."""
    scored = [outcome for outcome in outcomes if outcome.ours is not None]
    return {"scored": len(scored), "within": sum(is_within(outcome) for outcome in scored), "of": len(outcomes)}


def is_within(outcome: ValidatedTask) -> bool:
    """Whether ours and theirs differ by no more than chance of their samples explains."""
    assert outcome.ours is not None
    return abs(100 * outcome.ours.score - outcome.published.value) <= largest_difference(outcome.ours)
