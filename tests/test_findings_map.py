"""What docs/findings.md says of other learning rates and schedules, at equal operations, and of guidance early: every
sentence with a number is made here, from the published results. The base rate: tests/test_findings_page.py.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.files import ROOT
from harness.regime_map import main as regime_map
from harness.results.cells import (
    Cell,
    MethodRuns,
    cell_of,
    differences_to_opd,
    find_lead,
    load_decodings,
    main_runs,
    matrix,
    of_common_methods,
)
from harness.results.claims import Finding, judge, load_claims
from harness.results.collect import load_records
from harness.results.statistics import holm
from tests.findings_page import (
    BASE,
    ENTROPY,
    FAST,
    GUIDED,
    MULTIPLY,
    NORM,
    OPD,
    REGIMES,
    STOP_FKL,
    STOP_UNGUIDED,
    TEXTS,
    span,
    unsaid_numbers,
)
from tests.test_findings_page import DECODINGS, EOPD, REOPOLD, STUDY, found, said

MAP, GUIDANCE, EQUAL = (ROOT / "results" / name for name in ("regime_map", "guidance_early", "equal_operations"))
DATA, HALF = "Own samples are better than the data set's", "Own samples alone are better than half of them"
STEPS = (15, 30, 45, 90)
BREAKS = [(r, *way) for r in REGIMES[:2] for way in (("constant", FAST), ("cosine", FAST), ("constant", BASE))]
AT_SPEED = [cell for cell in BREAKS if cell[2] == FAST]
SAFE = ("seqkd", "fkl_stop", "additive_trust_stop", "reverse_kl")


@functools.cache
def cells() -> dict[str, dict[Cell, list[MethodRuns]]]:
    """All 18 cells with the map's twelve methods, by decoding."""
    folders = sorted(path.parent for study in (STUDY, MAP) for path in study.glob("*/runs.jsonl"))
    loaded = {decoding: of_common_methods(found) for decoding, found in load_decodings(folders, "arithmetic").items()}
    assert tuple(loaded) == DECODINGS and all(len(found) == 18 for found in loaded.values())
    return {decoding: {cell: main_runs(runs) for cell, runs in found.items()} for decoding, found in loaded.items()}


@functools.cache
def scores() -> Mapping[tuple[str, Cell, str], float]:
    """Mean scores in %, by decoding, cell and label."""
    return {
        (decoding, cell, r.label): 100 * float(matrix(r, sorted(r.evaluations)).mean())
        for decoding, of in cells().items()
        for cell, runs in of.items()
        for r in runs
    }


@functools.cache
def against_opd(decoding: str) -> dict[str, tuple[int, int]]:
    """In how many of the 18 cells a method is resolved above and below OPD, corrected over all cells and methods."""
    pairs = [
        (label, difference)
        for runs in cells()[decoding].values()
        for label, difference in differences_to_opd({r.label: r for r in runs}).items()
    ]
    counts = {label: (0, 0) for label, _ in pairs}
    for (label, difference), p in zip(pairs, holm([d.p_value for _, d in pairs]), strict=True):
        if p <= 0.05:
            above, below = counts[label]
            up = difference.estimate > 0
            counts[label] = (above + up, below + (not up))
    return counts


def three(values) -> str:
    """One for each decoding."""
    return " / ".join(map(str, values)).replace("-", "−")


def spans(label: str, of: list[Cell]) -> str:
    """The smallest and the largest mean of a method over some cells, under each decoding."""
    return three(span(scores()[decoding, cell, label] for cell in of) for decoding in DECODINGS)


def means(label: str, cell: Cell) -> str:
    return three(f"{scores()[decoding, cell, label]:.1f}" for decoding in DECODINGS)


def count(claim: str, verdict: str) -> str:
    """In how many of the 15 cells a claim came out so."""
    return three(sum(f.verdict == verdict for f in found(MAP)[claim][decoding]) for decoding in DECODINGS)


def leads(label: str) -> str:
    """In how many of the 18 cells a method has the highest mean."""
    return three(sum(find_lead(runs).leader == label for runs in cells()[decoding].values()) for decoding in DECODINGS)


def above(label: str) -> str:
    return three(against_opd(decoding)[label][0] for decoding in DECODINGS)


def higher_than_opd(label: str) -> str:
    """In how many of the 18 cells its mean is above OPD's."""
    return three(
        sum(scores()[decoding, cell, label] > scores()[decoding, cell, "opd"] for cell in cells()[decoding])
        for decoding in DECODINGS
    )


def best(label: str) -> str:
    """The best of its six cells in each regime, by the paper's decoding."""
    return ", ".join(
        f"{max(scores()['paper', cell, label] for cell in cells()['paper'] if cell[0] == regime):.1f}"
        for regime in REGIMES
    )


def of_metric(claim: str, of: list[Cell]) -> list[Finding]:
    """A metric's findings in some cells: they are of no decoding."""
    return [f for f in found(MAP)[claim]["paper"] if f.cell in of]


def test_what_is_said_of_the_map_in_words() -> None:
    """That TrOPD breaks at three times the rate where OPD does not, and the rest."""
    for decoding, of in cells().items():
        mean = {(cell, label): score for (at, cell, label), score in scores().items() if at == decoding}
        for cell in AT_SPEED:
            assert mean[cell, "tropd"] < 2 / 3 * mean[cell, "opd"] < mean[cell, "tropd_stop"]
        assert all(mean[cell, label] > mean[cell, "opd"] for cell in of for label in ("seqkd", "fkl_stop"))
        assert all(against_opd(decoding)[label][1] == 0 for label in SAFE)
        assert all(f.verdict != "as claimed" for f in found(MAP)[TEXTS][decoding])
    assert all(any(find_lead(of[cell]).rivals for of in cells().values()) for cell in cells()["paper"])  # no winner


def map_sentences() -> list[str]:
    outliers, entropies = (of_metric(claim, AT_SPEED) for claim in (MULTIPLY, ENTROPY))
    norms = [f.verdict for f in found(MAP)[NORM]["paper"]]
    lower = sum(f.difference[0] < 0 for f in of_metric(NORM, BREAKS))
    resolved = sum(f.verdict == "as claimed" for f in (*outliers, *entropies))
    return [
        f"TrOPD ends there at {spans('tropd', AT_SPEED)} %, OPD at {spans('opd', AT_SPEED)} %, and TrOPD that learns "
        f"nothing after a rollout's first hard outlier (`tropd_stop`) at {spans('tropd_stop', AT_SPEED)} %",
        f"at the constant base rate TrOPD has {means('tropd', BREAKS[2])} % in `student` and "
        f"{means('tropd', BREAKS[5])} % in `student_latent`, OPD {means('opd', BREAKS[2])} and "
        f"{means('opd', BREAKS[5])} %",
        f"TrOPD is resolved as better than OPD in {count(OPD, 'as claimed')} of these 15 cells, as worse in "
        f"{count(OPD, 'the opposite')}",
        f"in the paper's decoding OPD has {best('opd')} %, TrOPD {best('tropd')} %",
        f"TrOPD without guidance ends at {spans('fkl_outlier', BREAKS)} %, and with the stop at "
        f"{spans('tropd_stop (prefix_schedule=none)', BREAKS)} %; the plain forward KL at "
        f"{spans('fkl_direct', BREAKS)} % and at {spans('fkl_stop', BREAKS)} %",
        f"are {span((100 * f.means[0] for f in outliers), 0)} % of unguided TrOPD's tokens, with the stop "
        f"{span((100 * f.means[1] for f in outliers), 0)} %, and the student's entropy is "
        f"{span(f.means[0] for f in entropies)} nats against {span(f.means[1] for f in entropies)} (resolved in "
        f"{resolved} of {len(outliers) + len(entropies)})",
        f"for unguided TrOPD in {count(STOP_UNGUIDED, 'as claimed')} of 15 cells and as a loss in "
        f"{count(STOP_UNGUIDED, 'the opposite')}, for the plain forward KL in {count(STOP_FKL, 'as claimed')} and "
        f"{count(STOP_FKL, 'the opposite')}",
        f"TrOPD's is resolved as lower than OPD's in {norms.count('as claimed')} of 15 cells and as higher in "
        f"{norms.count('the opposite')}; in {lower} of the six cells of (2) its mean is the lower one",
        f"`seqkd` has the highest mean in {leads('seqkd')} of 18 cells, `fkl_stop` in {leads('fkl_stop')} and "
        f"`reverse_kl` in {leads('reverse_kl')}",
        *(f"`{label}` in {higher_than_opd(label)}, resolved in {above(label)}" for label in SAFE),
        f"OPD is resolved below `seqkd` in {count(TEXTS, 'the opposite')} of 15 and above it in "
        f"{count(TEXTS, 'as claimed')}",
        f"as a gain in {count(GUIDED, 'as claimed')} of 15 cells and as a loss in {count(GUIDED, 'the opposite')}",
    ]


def steps_made(label: str) -> str:
    """What the budget came to: mean steps over the replicates, in the three regimes."""
    records = [r for path in EQUAL.glob("*/runs.jsonl") for r in load_records(path.parent) if r.label == label]
    made = {regime: [r.counters.steps for r in records if cell_of(r)[0] == regime] for regime in REGIMES}
    assert all(len(of) == 5 for of in made.values())
    return ", ".join(f"{sum(of) / 5:.0f}" for of in made.values())


def equal_sentences() -> list[str]:
    return [
        f"OPD makes {steps_made('opd')} steps, TrOPD {steps_made('tropd')}, `seqkd` {steps_made('seqkd')} and `sft` "
        f"{steps_made('sft')}",
        f"TrOPD minus OPD is then {said(OPD, EQUAL)}",
        f"TrOPD minus REOPOLD {said(REOPOLD, EQUAL)}",
        f"TrOPD minus EOPD {said(EOPD, EQUAL)}",
        f"OPD minus `seqkd` {said(TEXTS, EQUAL)}",
        f"OPD minus `sft` {said(DATA, EQUAL)}",
        f"OPD minus `gkd` {said(HALF, EQUAL)}",
    ]


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
    named = [f"{what} in `{f.cell[0]}` ({100 * f.difference[0]:+.1f})" for what, f in resolved]
    return f"after {steps} steps in {len(resolved)} of {len(early()[steps])}: {', '.join(named)}".replace("-", "−")


def early_sentences() -> list[str]:
    of_student = [f for found in early().values() for _, f in found if f.cell[0] == "student"]
    assert [f.verdict for f in of_student if f.verdict != "not resolved"] == ["the opposite"]
    return [after(steps) for steps in STEPS]


@pytest.mark.slow
def test_the_committed_map_is_what_the_runs_say(tmp_path: Path) -> None:
    folders = sorted(path.parent for study in (STUDY, MAP, EQUAL) for path in study.glob("*/runs.jsonl"))
    assert regime_map([*map(str, folders), "--output", str(tmp_path / "map.md")]) == 0
    assert (tmp_path / "map.md").read_text() == (MAP / "regime_map.md").read_text()


@pytest.mark.parametrize(
    ("title", "sentences"),
    [
        ("The regime map", map_sentences),
        ("At equal operations", equal_sentences),
        ("Does guidance help early?", early_sentences),
    ],
    ids=["map", "equal", "early"],
)
def test_every_number_is_that_of_the_runs(title: str, sentences) -> None:
    assert not unsaid_numbers(title, sentences())
