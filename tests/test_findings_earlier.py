"""What docs/findings.md says of the earlier edition (another recipe, temperature 1), from the runs of that edition."""

from __future__ import annotations

import functools

import pytest

from harness.files import ROOT
from harness.results.cells import Cell, MethodRuns, load_cells
from harness.results.claims import Finding, Verdict, judge, load_claims
from tests.findings_page import (
    ADDITIVE,
    ADDITIVE_FLOOR,
    AOPD_GATE,
    BASE,
    DIRECT,
    EXACT,
    FKL_FLOOR,
    FKL_NOTHING,
    GUIDED,
    GUIDED_FLOOR,
    GUIDED_MASK,
    MASK,
    NORM,
    NORM_UNGUIDED,
    OPD,
    READING,
    REGIMES,
    REOPOLD,
    STOP_FKL,
    STOP_UNGUIDED,
    TEXTS,
    unsaid_numbers,
)


@functools.cache
def cells() -> dict[Cell, list[MethodRuns]]:
    folders = sorted(path.parent for path in (ROOT / "results" / "small_scale_earlier").glob("*/runs.jsonl"))
    return load_cells(folders, "arithmetic")


@functools.cache
def found() -> dict[str, list[Finding]]:
    """Of each claim, in the words of claims.yaml."""
    claims = load_claims(ROOT / "results" / "small_scale_earlier" / "claims.yaml")
    return {claim.claim: findings for claim, findings in judge(claims, cells())}


def at_base(claim: str) -> dict[str, Finding]:
    """By regime, at the base rate with its decay."""
    return {f.cell[0]: f for f in found()[claim] if f.cell[1:] == ("cosine", BASE)}


def count(claim: str, verdict: Verdict, regimes: tuple[str, ...] = REGIMES) -> int:
    return sum(f.verdict == verdict and f.cell[0] in regimes for f in found()[claim])


CLAIMED, OPPOSITE = "as claimed", "the opposite"
CHANGED = (
    OPD,
    REOPOLD,
    DIRECT,
    READING,
    FKL_FLOOR,
    FKL_NOTHING,
    GUIDED,
    GUIDED_FLOOR,
    GUIDED_MASK,
    STOP_UNGUIDED,
    STOP_FKL,
)
CHANGED += (MASK, ADDITIVE, ADDITIVE_FLOOR, AOPD_GATE, EXACT, TEXTS, NORM, NORM_UNGUIDED)


def changed_rows() -> list[str]:
    """Of `What changed`: cells as claimed / the opposite by each interval alone, as before, and by Holm."""
    rows = []
    for claim in load_claims(ROOT / "results" / "small_scale_earlier" / "claims.yaml"):
        if claim.claim in CHANGED:
            findings, up = found()[claim.claim], claim.expected == "higher"
            above, below = sum(f.difference[1] > 0 for f in findings), sum(f.difference[2] < 0 for f in findings)
            before = f"{above} / {below}" if up else f"{below} / {above}"
            now = f"{count(claim.claim, CLAIMED)} / {count(claim.claim, OPPOSITE)}"
            rows.append(f"| {claim.claim} | {before} | {now} | {len(findings)} |")
    return rows


@pytest.mark.parametrize(
    ("title", "sentences"),
    [
        ("What the earlier edition corrected", changed_rows),
    ],
    ids=["corrected"],
)
def test_every_number_is_that_of_the_runs(title: str, sentences) -> None:
    assert not unsaid_numbers(title, sentences())
