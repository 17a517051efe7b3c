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
from harness.results.orders import OWN_NAME
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


def render_decodings(claims: Sequence[Claim], by_decoding: Mapping[str, Mapping[Cell, Sequence[MethodRuns]]]) -> str:
    """`render`, the decodings of the task side by side; as it is for one."""
    if len(by_decoding) == 1:
        return render(claims, next(iter(by_decoding.values())))
    found = {
        decoding or OWN_NAME: [(claim, measure(claim, cells)) for claim in claims]
        for decoding, cells in by_decoding.items()
    }
    parts = [_alike(found)]
    for name, measured in found.items():
        parts += [f"### Summary, {name}", _summary(measured)]
    for claim, *findings in zip(claims, *([f for _, f in measured] for measured in found.values()), strict=True):
        if claim.quantity == SCORE:
            parts.append(_decoded_section(claim, dict(zip(found, findings, strict=True))))
        else:  # a metric of the training, whatever its checkpoint is decoded by
            parts.append(_section(claim, findings[0]))
    return "\n\n".join(parts) + "\n"


def _alike(found: Mapping[str, Sequence[tuple[Claim, Sequence[Finding]]]]) -> str:
    """In how many cells a claim about scores comes out alike under every decoding."""
    verdicts: dict[tuple[Claim, Cell], set[str]] = {}
    for measured in found.values():
        for claim, findings in measured:
            for f in findings if claim.quantity == SCORE else ():
                verdicts.setdefault((claim, f.cell), set()).add(f.verdict)
    counts = [sum(v == {verdict} for v in verdicts.values()) for verdict in get_args(Verdict)]
    said = ", ".join(f"{count} {verdict}" for count, verdict in zip(counts, get_args(Verdict), strict=True))
    turned = sum({"as claimed", "the opposite"} <= v for v in verdicts.values())
    return (
        f"Claims about scores under {', '.join(found)}, claim by claim and cell by cell ({len(verdicts)}): under every "
        f"decoding alike {said}; the verdict turns round, resolved on both sides, in {turned}; in the other "
        f"{len(verdicts) - sum(counts) - turned} it is resolved under some decodings alone."
    )


def _decoded_section(claim: Claim, findings: Mapping[str, Sequence[Finding]]) -> str:
    """A claim about scores: a row for each cell, and for each decoding the difference and the verdict."""
    rows: dict[Cell, list[str]] = {}
    for place, found in enumerate(findings.values()):
        for f in found:
            estimate, low, high = (_number(value, SCORE) for value in f.difference)
            row = rows.setdefault(f.cell, [*_cell_cells(f), *[NOTHING] * len(findings)])
            row[place - len(findings)] = f"{estimate} [{low}, {high}], {f.verdict}"
    header = ["regime", "schedule, rate", "replicates", *findings]
    body = table(header, [rows[cell] for cell in sorted(rows)], "llr") if rows else "Not measured yet."
    question = f"score, %, `{claim.a}` minus `{claim.b}`: `{claim.a}` {claim.expected} than `{claim.b}`?"
    return f"### {claim.claim.rstrip('.')}\n\n{claim.source}. {question}\n\n{body}"


def _cell_cells(finding: Finding) -> list[str]:
    regime, schedule, rate = finding.cell
    return [regime, f"{schedule} {rate:g}", str(finding.replicates)]


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
        estimate, low, high = (_number(value, claim.quantity) for value in f.difference)
        means = [_number(mean, claim.quantity) for mean in (f.a, f.b)]
        difference = f"{estimate} [{low}, {high}]"
        rows.append([*_cell_cells(f), *means, difference, f.verdict])
    body = table(header, rows, "llrrrrl") if findings else "Not measured yet."
    title = f"### {claim.claim.rstrip('.')}"
    return f"{title}\n\n{claim.source}. {quantity}: `{claim.a}` {claim.expected} than `{claim.b}`?\n\n{body}"


def _number(value: float, quantity: str) -> str:
    return f"{value:.1f}" if quantity == SCORE else f"{value:.3g}"
