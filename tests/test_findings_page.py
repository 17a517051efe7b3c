"""docs/findings.md says what the runs say under each decoding: every sentence with a number is made here, from the
published results. What it says of the earlier edition: tests/test_findings_earlier.py.

What is left of its prose without these sentences has no digit that is not named in WORDS.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

import pytest

from harness.files import ROOT
from harness.results.cells import load_decodings
from harness.results.claims import Finding, Verdict, judge, load_claims
from tests.findings_page import (
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
    OTHERS,
    RANDOM,
    READING,
    REGIMES,
    REOPOLD,
    SCALAR,
    STOP_FKL,
    STOP_UNGUIDED,
    TEXTS,
    span,
    unsaid_numbers,
)
from tests.test_findings_earlier import at_base

STUDY = ROOT / "results" / "small_scale"
DECODINGS = ("greedy", "paper", "sampled")
STOP_PLACE = "Where the stop falls matters (TrOPD without guidance)"
STOP_GUIDED = "It helps to learn nothing after a rollout's first hard outlier (TrOPD)"
AOPD = "AOPD is better than OPD"
EOPD = "TrOPD is better than EOPD"
NEARER, NEARER_FORWARD, NEARER_EXACT, NEARER_TEXTS = (
    "TrOPD ends nearer to its teacher than OPD on the student's own samples",
    "TrOPD ends nearer to its teacher than OPD on the teacher's samples",
    "The exact reverse KL ends nearer to its teacher than OPD on the student's own samples",
    "The teacher's texts alone bring a student nearer to its teacher on the teacher's samples than OPD does",
)


NEW = (STOP_PLACE, NEARER, NEARER_FORWARD, NEARER_EXACT, NEARER_TEXTS)  # the earlier edition has them not


@functools.cache
def found(study: Path = STUDY) -> dict[str, dict[str, list[Finding]]]:
    """Of each claim of a study, in the words of its claims.yaml, by decoding."""
    cells = load_decodings(sorted(path.parent for path in study.glob("*/runs.jsonl")), "arithmetic")
    claims = load_claims(study / "claims.yaml")
    assert tuple(cells) == DECODINGS
    by_decoding = {decoding: judge(claims, found) for decoding, found in cells.items()}
    return {
        claim.claim: {decoding: judged[place][1] for decoding, judged in by_decoding.items()}
        for place, claim in enumerate(claims)
    }


def of(claim: str, regime: str, decoding: str, study: Path = STUDY) -> Finding:
    (finding,) = (f for f in found(study)[claim][decoding] if f.cell[0] == regime)
    return finding


def signed(value: float, digits: int = 1) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def three(claim: str, regime: str, study: Path = STUDY) -> str:
    """The differences under the decodings, such as `+24.5 / +19.1 / −2.1`."""
    return " / ".join(signed(of(claim, regime, decoding, study).difference[0]) for decoding in DECODINGS)


def resolved(claim: str) -> dict[str, dict[str, Verdict]]:
    """Where a claim is resolved: regime -> decoding -> verdict."""
    verdicts = {r: {d: of(claim, r, d).verdict for d in DECODINGS} for r in REGIMES}
    return {r: kept for r, v in verdicts.items() if (kept := {d: x for d, x in v.items() if x != "not resolved"})}


def said(claim: str, study: Path = STUDY) -> str:
    """A claim's differences in the three regimes, with the decodings under which each is resolved."""
    parts = []
    for regime in REGIMES:
        under = [decoding for decoding in DECODINGS if of(claim, regime, decoding, study).verdict != "not resolved"]
        where = f" (resolved: {', '.join(under)})" if under else ""
        parts.append(f"{three(claim, regime, study)} in `{regime}`{where}")
    return ", ".join(parts)


def metric(claim: str, digits: int = 2) -> str:
    """Of a metric of the training, which no decoding touches: the differences in the three regimes."""
    marks = {"as claimed": ", resolved", "the opposite": ", resolved", "not resolved": ""}
    found = {regime: of(claim, regime, "paper") for regime in REGIMES}
    return ", ".join(f"{signed(f.difference[0], digits)} (`{r}`{marks[f.verdict]})" for r, f in found.items())


def norms(claim: str) -> str:
    """The gradient norm of a in % of b's, over the regimes."""
    means = [of(claim, regime, "paper").means for regime in REGIMES]
    return span((100 * a / b for a, b in means), 0)


def base_rate_sentences() -> list[str]:
    others = {decoding: found()[OTHERS][decoding] for decoding in DECODINGS}
    above, below = (
        " / ".join(str(sum(f.verdict == verdict for f in others[d])) for d in DECODINGS)
        for verdict in ("as claimed", "the opposite")
    )
    return [
        f"TrOPD minus OPD is {said(OPD)}",
        f"TrOPD minus OPD, forward KL on the teacher's samples: {metric(NEARER_FORWARD, 3)} nats a token; reverse KL "
        f"on the student's own: {metric(NEARER)}",
        f"Without guidance it stands {said(FKL_FLOOR)} from a floor on the reward",
        f"AOPD, which does the like, stands {said(AOPD)} from OPD",
        f"to {norms(NORM)} % of OPD's, and without guidance to {norms(NORM_UNGUIDED)} %",
        f"TrOPD minus random gate: {said(RANDOM)}",
        f"the stop at its own place is ahead by {said(STOP_PLACE)}",
        f"the exact reverse KL gains {said(EXACT)} on OPD",
        f"OPD minus `seqkd` is {said(TEXTS)}",
        f"Of {len(others['paper'])} differences between it and the others {above} are resolved above it and {below} "
        "below",
    ]


ALL = dict.fromkeys(DECODINGS, "as claimed")


def opposite(*decodings: str) -> dict[str, Verdict]:
    return dict.fromkeys(decodings, "the opposite")


def claimed(*decodings: str) -> dict[str, Verdict]:
    return dict.fromkeys(decodings, "as claimed")


WHAT_THE_PAGE_SAYS_IN_WORDS = {  # where a claim is resolved, by regime and decoding; nowhere else
    OPD: {},
    REOPOLD: {},
    EOPD: {},
    FKL_FLOOR: {"student": claimed("greedy", "paper")},
    FKL_NOTHING: {"student": claimed("greedy", "paper"), "student_style": opposite("sampled")},
    AOPD: {"student": claimed("greedy", "paper"), "student_style": opposite("sampled")},
    NORM: dict.fromkeys(REGIMES, ALL),
    NORM_UNGUIDED: dict.fromkeys(REGIMES, ALL),
    RANDOM: {"student": claimed("greedy")},
    GUIDED: {"student_style": claimed("sampled")},
    GUIDED_FLOOR: {"student_style": claimed("sampled")},
    GUIDED_MASK: {"student": claimed("greedy", "paper"), "student_latent": ALL},
    STOP_GUIDED: {},
    STOP_UNGUIDED: {"student_style": claimed("sampled")},
    STOP_FKL: {"student_style": claimed("sampled")},
    STOP_PLACE: {"student": claimed("greedy"), "student_style": claimed("paper", "sampled")},
    READING: dict.fromkeys(REGIMES, ALL),
    SCALAR: dict.fromkeys(REGIMES, ALL),
    DIRECT: {
        "student": opposite(*DECODINGS),
        "student_latent": opposite(*DECODINGS),
        "student_style": opposite("greedy", "paper"),
    },
    MASK: {"student_latent": claimed("greedy", "sampled"), "student_style": opposite(*DECODINGS)},
    EXACT: {"student": ALL, "student_latent": claimed("sampled"), "student_style": ALL},
    TEXTS: {
        "student": opposite(*DECODINGS),
        "student_latent": opposite("sampled"),
        "student_style": opposite(*DECODINGS),
    },
    NEARER_FORWARD: {"student": ALL},
    NEARER: {},
}


@pytest.mark.parametrize("claim", WHAT_THE_PAGE_SAYS_IN_WORDS)
def test_what_is_said_in_words_is_resolved_where_it_says(claim: str) -> None:
    assert resolved(claim) == WHAT_THE_PAGE_SAYS_IN_WORDS[claim]


def test_what_the_page_says_of_means() -> None:
    """In words, of what is not resolved."""
    for regime in ("student", "student_latent"):
        gains = [of(OPD, regime, decoding).difference[0] for decoding in DECODINGS]
        assert gains == sorted(gains, reverse=True)  # from greedy to temperature 1
    assert all(of(NEARER_FORWARD, r, "paper").difference[0] < 0 < of(NEARER, r, "paper").difference[0] for r in REGIMES)


def changed_rows() -> list[str]:
    """Of `What changed`: in how many of the three regimes a claim was resolved at the base rate, as claimed / the
    opposite, by the earlier edition and by this one.
    """
    rows = []
    for claim, by_decoding in found().items():
        if claim in (OTHERS, *NEW) or "*" in claim or len(by_decoding["paper"]) != len(REGIMES):
            continue
        now = [_counts(by_decoding[decoding]) for decoding in DECODINGS]
        before = _counts(at_base(claim).values())
        if len({before, *now}) > 1:
            rows.append(f"| {claim} | {before} | {' | '.join(now)} |")
    return rows


def _counts(findings: Iterable[Finding]) -> str:
    verdicts = [f.verdict for f in findings]
    return f"{verdicts.count('as claimed')} / {verdicts.count('the opposite')}"


@pytest.mark.parametrize(
    ("title", "sentences"),
    [("What the base rate says", base_rate_sentences), ("What changed since the earlier edition", changed_rows)],
    ids=["base", "changed"],
)
def test_every_number_is_that_of_the_runs(title: str, sentences) -> None:
    assert not unsaid_numbers(title, sentences())
