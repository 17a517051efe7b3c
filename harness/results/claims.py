"""Claims about methods, against finished comparisons: `python -m harness.findings`, whose help says how they are
tested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from scipy import stats

from harness.errors import UserError
from harness.results.cells import Cell, MethodRuns, Replicate, main_runs, matrix
from harness.results.escape import Markdown
from harness.results.expectations import read_yaml
from harness.results.leaderboard import ALPHA
from harness.results.markdown import table
from harness.results.orders import OWN_NAME
from harness.results.render import NOTHING
from harness.results.statistics import CONFIDENCE, holm, paired_difference

SCORE = "score"
OF_NO_DECODING = "Claims about metrics of the training alone: no decoding of a checkpoint touches them."
EVERY_OTHER = "*"  # as `a`: every method of the cell but b
Verdict = Literal["as claimed", "the opposite", "not resolved"]


@dataclass(frozen=True)
class Claim:
    """What somebody says of two methods."""

    claim: str  # in words
    source: str  # who says so
    family: str  # the claims that are corrected together, over all of their cells
    a: str  # label of a row, or EVERY_OTHER
    b: str
    expected: Literal["higher", "lower"]  # of a against b
    quantity: str = SCORE  # or a key of metrics.jsonl


@dataclass(frozen=True)
class Finding:
    """What was measured of a claim in one cell. Scores are in percent, metrics in their own unit."""

    cell: Cell
    label: str  # of a: the claim's, or one of every other
    replicates: int
    means: tuple[float, float]  # of a and b over the replicates that both have
    difference: tuple[float, float, float]  # a - b, and the ends of its 95 % interval
    p_value: float  # two-sided; within `judge`'s answer, Holm's over the family
    verdict: Verdict = "not resolved"


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
    """The claim in every cell where two or more replicates have both methods; not yet judged."""
    findings = []
    for cell, runs in sorted(cells.items()):
        by_label = {r.label: r for r in main_runs(runs)}
        for label in sorted(by_label.keys() - {claim.b}) if claim.a == EVERY_OTHER else [claim.a]:
            if label not in by_label or claim.b not in by_label:
                continue
            a, b = by_label[label], by_label[claim.b]
            shared = sorted(set(a.evaluations) & set(b.evaluations))
            if len(shared) > 1:
                compare = _compare_scores if claim.quantity == SCORE else _compare_metric
                means, difference, p_value = compare(claim.quantity, a, b, shared)
                findings.append(
                    Finding(cell, label, replicates=len(shared), means=means, difference=difference, p_value=p_value)
                )
    return findings


def judge(claims: Sequence[Claim], cells: Mapping[Cell, Sequence[MethodRuns]]) -> list[tuple[Claim, list[Finding]]]:
    """All claims measured; within a family, over all cells of its claims, by Holm's adjusted p-values at 5 %."""
    found = [(claim, measure(claim, cells)) for claim in claims]
    adjusted: dict[str, list[float]] = {}
    for family in {claim.family for claim in claims}:
        adjusted[family] = holm([f.p_value for claim, findings in found if claim.family == family for f in findings])
    left = {family: iter(p_values) for family, p_values in adjusted.items()}
    return [(claim, [_judged(claim, f, next(left[claim.family])) for f in findings]) for claim, findings in found]


def _judged(claim: Claim, finding: Finding, adjusted: float) -> Finding:
    verdict: Verdict = "not resolved"
    if adjusted <= ALPHA:
        verdict = "as claimed" if (finding.difference[0] > 0) == (claim.expected == "higher") else "the opposite"
    return replace(finding, p_value=adjusted, verdict=verdict)


Compared = tuple[tuple[float, float], tuple[float, float, float], float]  # means, difference and ends, p-value


def _compare_scores(_: str, a: MethodRuns, b: MethodRuns, shared: Sequence[Replicate]) -> Compared:
    y_a, y_b = matrix(a, shared), matrix(b, shared)
    found = paired_difference(y_a, y_b)
    percent = (100 * found.estimate, 100 * found.low, 100 * found.high)
    return (100 * float(y_a.mean()), 100 * float(y_b.mean())), percent, found.p_value


def _compare_metric(key: str, a: MethodRuns, b: MethodRuns, shared: Sequence[Replicate]) -> Compared:
    for runs in (a, b):
        if any(key not in runs.training[replicate] for replicate in shared):
            raise UserError(f"{runs.label} has no metric {key!r}; publish its comparison again, or mend the claim.")
    values_a, values_b = (np.array([runs.training[replicate][key] for replicate in shared]) for runs in (a, b))
    paired = values_a - values_b
    mean, error = float(paired.mean()), float(paired.std(ddof=1)) / math.sqrt(len(shared))
    df = len(shared) - 1
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, df)) * error
    p_value = float(2 * stats.t.sf(abs(mean) / error, df)) if error else float(mean == 0)
    return (float(values_a.mean()), float(values_b.mean())), (mean, mean - half, mean + half), p_value


def render(claims: Sequence[Claim], cells: Mapping[Cell, Sequence[MethodRuns]]) -> str:
    """A summary, the families, then a section for each claim with a row for each cell, as markdown."""
    found = judge(claims, cells)
    parts = [_summary(found), _families(found), *(_section(claim, findings) for claim, findings in found)]
    return "\n\n".join(parts) + "\n"


def render_decodings(claims: Sequence[Claim], by_decoding: Mapping[str, Mapping[Cell, Sequence[MethodRuns]]]) -> str:
    """`render`, the decodings of the task side by side, each corrected by itself; as it is for one."""
    if len(by_decoding) == 1:
        return render(claims, next(iter(by_decoding.values())))
    found = {decoding or OWN_NAME: judge(claims, cells) for decoding, cells in by_decoding.items()}
    if any(claim.quantity == SCORE for claim in claims):
        parts = [_alike(found), "### At a glance", _glance(found)]
        for name, judged in found.items():
            parts += [f"### Summary, {name}", _summary(judged), _families(judged)]
    else:
        first = next(iter(found.values()))
        parts = [OF_NO_DECODING, "### At a glance", _glance(found), "### Summary", _summary(first), _families(first)]
    for claim, *findings in zip(claims, *([f for _, f in judged] for judged in found.values()), strict=True):
        if claim.quantity == SCORE:
            parts.append(_decoded_section(claim, dict(zip(found, findings, strict=True))))
        else:  # a metric of the training, whatever its checkpoint is decoded by
            parts.append(_section(claim, findings[0]))
    return "\n\n".join(parts) + "\n"


def _alike(found: Mapping[str, Sequence[tuple[Claim, Sequence[Finding]]]]) -> str:
    """In how many cells a claim about scores comes out alike under every decoding."""
    verdicts: dict[tuple[Claim, str, Cell], set[str]] = {}
    for judged in found.values():
        for claim, findings in judged:
            for f in findings if claim.quantity == SCORE else ():
                verdicts.setdefault((claim, f.label, f.cell), set()).add(f.verdict)
    counts = [sum(v == {verdict} for v in verdicts.values()) for verdict in get_args(Verdict)]
    said = ", ".join(f"{count} {verdict}" for count, verdict in zip(counts, get_args(Verdict), strict=True))
    turned = sum({"as claimed", "the opposite"} <= v for v in verdicts.values())
    return (
        f"Claims about scores under {', '.join(found)}, claim by claim and cell by cell ({len(verdicts)}): under every "
        f"decoding alike {said}; the verdict turns round, resolved on both sides, in {turned}; in the other "
        f"{len(verdicts) - sum(counts) - turned} it is resolved under some decodings alone."
    )


def _glance(found: Mapping[str, Sequence[tuple[Claim, Sequence[Finding]]]]) -> str:
    """Claims x regimes: the differences under each decoding, of a regime of several cells their range; in bold what is
    resolved, of several cells with how often."""
    first = next(iter(found.values()))
    regimes = sorted({f.cell[0] for _, findings in first for f in findings})
    rows = []
    for claim, *of_decodings in zip([c for c, _ in first], *([f for _, f in j] for j in found.values()), strict=True):
        if claim.a == EVERY_OTHER or not of_decodings[0]:
            continue
        shown = of_decodings if claim.quantity == SCORE else of_decodings[:1]
        cells = [
            " / ".join(_range([f for f in findings if f.cell[0] == regime], claim.quantity) for findings in shown)
            for regime in regimes
        ]
        rows.append([f"{claim.claim.rstrip('.')} ({claim.expected})", *map(Markdown, cells)])
    scores = f"scores in points, {' / '.join(found)}; " if any(c.quantity == SCORE for c, _ in first) else ""
    note = (
        f"a minus b of every claim: {scores}metrics of the training in their own unit. "
        f"Bold: resolved, whichever way (Holm over the claim's family{' and decoding' if scores else ''}, 5 %)"
    )
    several = any(len([f for f in fs if f.cell[0] == r]) > 1 for _, fs in first for r in regimes)
    note += "; of several rates and schedules the range, and in how many of them it is resolved." if several else "."
    return f"{note}\n\n{table(['claim (what is claimed of a)', *regimes], rows, 'lr')}"


def _range(findings: Sequence[Finding], quantity: str) -> str:
    """The differences of a regime's cells: the one there is, or the smallest and the largest."""
    if not findings:
        return NOTHING
    signed = [f"{f.difference[0]:+.1f}" if quantity == SCORE else f"{f.difference[0]:+.3g}" for f in findings]
    resolved = sum(f.verdict != "not resolved" for f in findings)
    if len(findings) == 1:
        return f"**{signed[0]}**" if resolved else signed[0]
    low, high = (
        signed[k]
        for k in (choose(range(len(findings)), key=lambda i: findings[i].difference[0]) for choose in (min, max))
    )
    return f"{low} to {high}" + (f" (**{resolved}** of {len(findings)})" if resolved else "")


def _decoded_section(claim: Claim, findings: Mapping[str, Sequence[Finding]]) -> str:
    """A claim about scores: a row for each cell, and for each decoding the difference and the verdict; of a claim about
    every other method, the rows alone that some decoding resolves.
    """
    every = claim.a == EVERY_OTHER
    rows: dict[tuple[str, Cell], list[str]] = {}
    resolved: set[tuple[str, Cell]] = set()
    for place, found in enumerate(findings.values()):
        for f in found:
            estimate, low, high = (_number(value, SCORE) for value in f.difference)
            row = rows.setdefault((f.label, f.cell), [*_names_of(f, every), *[NOTHING] * len(findings)])
            row[place - len(findings)] = f"{estimate} [{low}, {high}], {f.verdict}"
            resolved |= {(f.label, f.cell)} if f.verdict != "not resolved" else set()
    shown = [rows[key] for key in sorted(rows) if key in resolved or not every]
    header = [*(["a"] if every else []), "regime", "schedule, rate", "replicates", *findings]
    lines = [_question(claim)]
    if every and rows:
        lines.append(f"{len(rows) - len(shown)} of {len(rows)} differences are resolved under no decoding. The others:")
    if shown:
        lines.append(table(header, shown, ("l" if every else "") + "llr"))
    elif not rows:
        lines.append("Not measured yet.")
    return "\n\n".join([f"### {claim.claim.rstrip('.')}", *lines])


def _names_of(finding: Finding, every: bool) -> list[str]:
    """The cells that say of what a row is."""
    regime, schedule, rate = finding.cell
    return [
        *([Markdown(f"`{finding.label}`")] if every else []),
        regime,
        f"{schedule} {rate:g}",
        str(finding.replicates),
    ]


def _question(claim: Claim) -> str:
    quantity = "score, %" if claim.quantity == SCORE else claim.quantity
    asked = "every other method" if claim.a == EVERY_OTHER else f"`{claim.a}`"
    return f"{claim.source}. {quantity}: {asked} {claim.expected} than `{claim.b}`? Family: {claim.family}."


def _summary(found: Sequence[tuple[Claim, Sequence[Finding]]]) -> str:
    """Claims x regimes: in how many cells it came out how."""
    regimes = sorted({f.cell[0] for _, findings in found for f in findings})
    rows = []
    for claim, findings in found:
        verdicts = [[f.verdict for f in findings if f.cell[0] == regime] for regime in regimes]
        rows.append([claim.claim.rstrip("."), *map(_counts, verdicts)])
    total = _counts([f.verdict for _, findings in found for f in findings])
    note = (
        f"In how many cells (learning rates and schedules) of a regime a claim came out {' / '.join(get_args(Verdict))}"
        f"; in all {total}. A verdict is resolved where Holm's adjusted p-value over the claim's family is at most "
        f"{ALPHA:.0%}, in either direction; the intervals stand alone."
    )
    return f"{note}\n\n{table(['claim', *regimes], rows, 'lr')}"


def _counts(verdicts: Sequence[Verdict]) -> str:
    return " / ".join(str(verdicts.count(verdict)) for verdict in get_args(Verdict)) if verdicts else NOTHING


def _families(found: Sequence[tuple[Claim, Sequence[Finding]]]) -> str:
    """What was corrected together."""
    rows = []
    for family in dict.fromkeys(claim.family for claim, _ in found):
        members = [findings for claim, findings in found if claim.family == family]
        verdicts = [f.verdict for findings in members for f in findings]
        rows.append([family, str(len(members)), str(len(verdicts)), _counts(verdicts)])
    return table(["family", "claims", "tests", " / ".join(get_args(Verdict))], rows, "lr")


def _section(claim: Claim, findings: Sequence[Finding]) -> str:
    """A row for each cell; of a claim about every other method, the resolved ones alone."""
    every = claim.a == EVERY_OTHER
    shown = [f for f in findings if not every or f.verdict != "not resolved"]
    lines = [_question(claim)]
    if every and findings:
        lines.append(f"{len(findings) - len(shown)} of {len(findings)} differences are not resolved. The others:")
    header = [*(["a"] if every else []), "regime", "schedule, rate", "replicates", "a" if every else claim.a, claim.b]
    header += ["difference [95 %]", "p (Holm)", ""]
    rows = []
    for f in shown:
        estimate, low, high = (_number(value, claim.quantity) for value in f.difference)
        means = [_number(mean, claim.quantity) for mean in f.means]
        row = [*_names_of(f, every), *means, f"{estimate} [{low}, {high}]"]
        rows.append([*row, _p_value(f.p_value), f.verdict])
    if rows:
        lines.append(table(header, rows, ("l" if every else "") + "llrrrrrl"))
    elif not findings:
        lines.append("Not measured yet.")
    return "\n\n".join([f"### {claim.claim.rstrip('.')}", *lines])


def _number(value: float, quantity: str) -> str:
    return f"{value:.1f}" if quantity == SCORE else f"{value:.3g}"


def _p_value(p: float) -> str:
    return Markdown("< 0.001") if p < 0.001 else f"{p:.3f}"
