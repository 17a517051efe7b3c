"""What docs/findings.md says of other learning rates and schedules, and of guidance early: every sentence with a number
is made here, from the published results. The base rate: tests/test_findings_page.py.
"""

from __future__ import annotations

import functools

import pytest

from harness.files import ROOT
from harness.results.cells import load_decodings
from harness.results.claims import Finding, judge, load_claims
from tests.test_findings_earlier import unsaid_numbers

GUIDANCE = ROOT / "results" / "guidance_early"
STEPS = (15, 30, 45, 90)


@functools.cache
def early() -> dict[int, list[tuple[str, Finding]]]:
    """What was guided, and how it came out in each regime, by the steps after which it is scored."""
    measured = load_decodings(sorted(path.parent for path in GUIDANCE.glob("*/runs.jsonl")), "arithmetic")
    judged = judge(load_claims(GUIDANCE / "claims.yaml"), measured["paper"])  # curves are of no decoding of the test's
    return {
        steps: [
            (claim.claim.rpartition(" helped ")[2], finding)
            for claim, findings in judged
            if claim.quantity.endswith(f"@{steps}")
            for finding in findings
        ]
        for steps in STEPS
    }


def after(steps: int) -> str:
    """The resolved differences after so many steps."""
    resolved = [(what, f) for what, f in early()[steps] if f.verdict != "not resolved"]
    found = [f"{what} in `{f.cell[0]}` ({100 * f.difference[0]:+.1f})" for what, f in resolved]
    return f"after {steps} steps in {len(resolved)} of {len(early()[steps])}: {', '.join(found)}".replace("-", "−")


def early_sentences() -> list[str]:
    of_student = [f for found in early().values() for _, f in found if f.cell[0] == "student"]
    assert [f.verdict for f in of_student if f.verdict != "not resolved"] == ["the opposite"]
    return [after(steps) for steps in STEPS]


@pytest.mark.parametrize(
    ("title", "sentences"),
    [("Does guidance help early?", early_sentences)],
    ids=["early"],
)
def test_every_number_is_that_of_the_runs(title: str, sentences) -> None:
    assert not unsaid_numbers(title, sentences())
