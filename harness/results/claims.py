"""Claims about methods, one by one, against finished comparisons: `python -m harness.findings`, whose help says how
they are tested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from scipy import stats

from harness.errors import UserError
from harness.results.cells import Cell, MethodRuns, Replicate, at_equal_steps, matrix
from harness.results.expectations import read_yaml
from harness.results.markdown import table
from harness.results.render import NOTHING
from harness.results.statistics import CONFIDENCE, paired_difference

SCORE = "score"
Verdict = Literal["as claimed", "the opposite", "not resolved"]


@dataclass(frozen=True)
class Claim:
    """What somebody says of two methods."""

    claim: str  # in words
    source: str  # who says so
    a: str  # label of a row
    b: str
    expected: Literal["higher", "lower"]  # of a against b
    quantity: str = SCORE  # or a key of metrics.jsonl


@dataclass(frozen=True)
class Finding:
    """What was measured of a claim in one cell. Scores are in percent, metrics in their own unit."""

    cell: Cell
    replicates: int
    a: float  # means over the replicates that both have
    b: float
    difference: tuple[float, float, float]  # a - b, and the ends of its 95 % interval
    verdict: Verdict


def load_claims(path: Path) -> list[Claim]:
    """Reads a YAML list of claims; UserError names the entry and key that is wrong."""
    entries = read_yaml(path, "claims")
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path} must be a list of claims with the keys {', '.join(f.name for f in fields(Claim))}.")
    return [_parse(entry, f"{path} entry {number}") for number, entry in enumerate(entries, start=1)]


def _parse(entry: Any, where: str) -> Claim:
    known = {field.name: field.default is MISSING for field in fields(Claim)}
    if not isinstance(entry, Mapping):
        raise UserError(f"{where} is {entry!r}: it must be a mapping with the keys {', '.join(known)}.")
    for key in entry:
        if key not in known:
            raise UserError(f"{where} has the unknown key {key}; known: {', '.join(known)}.")
    for key, required in known.items():
        if not isinstance(entry.get(key, None if required else ""), str):
            raise UserError(f"{where}: {key} must be text, got {entry.get(key)!r}.")
    if entry["expected"] not in ("higher", "lower"):
        raise UserError(f"{where}: expected must be higher or lower, got {entry['expected']!r}.")
    return Claim(**entry)


def measure(claim: Claim, cells: Mapping[Cell, Sequence[MethodRuns]]) -> list[Finding]:
    """The claim in every cell where two or more replicates have both methods."""
    findings = []
    for cell, runs in sorted(cells.items()):
        by_label = {r.label: r for r in at_equal_steps(runs)}
        if claim.a not in by_label or claim.b not in by_label:
            continue
        a, b = by_label[claim.a], by_label[claim.b]
        shared = sorted(set(a.evaluations) & set(b.evaluations))
        if len(shared) < 2:
            continue
        compare = _compare_scores if claim.quantity == SCORE else _compare_metric
        mean_a, mean_b, difference = compare(claim.quantity, a, b, shared)
        findings.append(
            Finding(cell, len(shared), mean_a, mean_b, difference=difference, verdict=_verdict(claim, difference))
        )
    return findings


def _compare_scores(
    _: str, a: MethodRuns, b: MethodRuns, shared: Sequence[Replicate]
) -> tuple[float, float, tuple[float, float, float]]:
    y_a, y_b = matrix(a, shared), matrix(b, shared)
    found = paired_difference(y_a, y_b)
    percent = (100 * found.estimate, 100 * found.low, 100 * found.high)
    return 100 * float(y_a.mean()), 100 * float(y_b.mean()), percent


def _compare_metric(
    key: str, a: MethodRuns, b: MethodRuns, shared: Sequence[Replicate]
) -> tuple[float, float, tuple[float, float, float]]:
    for runs in (a, b):
        if any(key not in runs.training[replicate] for replicate in shared):
            raise UserError(f"{runs.label} has no metric {key!r}; publish its comparison again, or mend the claim.")
    values_a, values_b = (np.array([runs.training[replicate][key] for replicate in shared]) for runs in (a, b))
    paired = values_a - values_b
    mean, error = float(paired.mean()), float(paired.std(ddof=1)) / math.sqrt(len(shared))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(shared) - 1)) * error
    return float(values_a.mean()), float(values_b.mean()), (mean, mean - half, mean + half)


def _verdict(claim: Claim, difference: tuple[float, float, float]) -> Verdict:
    _, low, high = difference
    if low <= 0 <= high:
        return "not resolved"
    return "as claimed" if (low > 0) == (claim.expected == "higher") else "the opposite"


def render(claims: Sequence[Claim], cells: Mapping[Cell, Sequence[MethodRuns]]) -> str:
    """A summary, then a section for each claim with a row for each cell, as markdown."""
    found = [(claim, measure(claim, cells)) for claim in claims]
    return "\n\n".join([_summary(found), *(_section(claim, findings) for claim, findings in found)]) + "\n"


def _summary(found: Sequence[tuple[Claim, Sequence[Finding]]]) -> str:
    """Claims x regimes: in how many cells it came out how."""
    regimes = sorted({f.cell[0] for _, findings in found for f in findings})
    rows = []
    for claim, findings in found:
        verdicts = [[f.verdict for f in findings if f.cell[0] == regime] for regime in regimes]
        counts = [
            " / ".join(str(v.count(verdict)) for verdict in get_args(Verdict)) if v else NOTHING for v in verdicts
        ]
        rows.append([claim.claim.rstrip("."), *counts])
    total = [sum(f.verdict == verdict for _, findings in found for f in findings) for verdict in get_args(Verdict)]
    said = ", ".join(f"{count} {verdict}" for count, verdict in zip(total, get_args(Verdict), strict=True))
    note = (
        "In how many cells (learning rates and schedules) of a regime a claim came out "
        f"{' / '.join(get_args(Verdict))}; in all {said}."
    )
    return f"{note}\n\n{table(['claim', *regimes], rows, 'lr')}"


def _section(claim: Claim, findings: Sequence[Finding]) -> str:
    quantity = "score, %" if claim.quantity == SCORE else claim.quantity
    header = ["regime", "schedule, rate", "replicates", claim.a, claim.b, "difference [95 %]", ""]
    rows = []
    for f in findings:
        regime, schedule, rate = f.cell
        estimate, low, high = (_number(value, claim.quantity) for value in f.difference)
        means = [_number(mean, claim.quantity) for mean in (f.a, f.b)]
        difference = f"{estimate} [{low}, {high}]"
        rows.append([regime, f"{schedule} {rate:g}", str(f.replicates), *means, difference, f.verdict])
    body = table(header, rows, "llrrrrl") if findings else "Not measured yet."
    title = f"### {claim.claim.rstrip('.')}"
    return f"{title}\n\n{claim.source}. {quantity}: `{claim.a}` {claim.expected} than `{claim.b}`?\n\n{body}"


def _number(value: float, quantity: str) -> str:
    return f"{value:.1f}" if quantity == SCORE else f"{value:.3g}"
