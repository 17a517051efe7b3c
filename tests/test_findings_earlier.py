"""What docs/findings.md says of the earlier edition (another recipe, temperature 1), whose map is not made again yet:
every sentence with a number is made here, from the published results.

What is left of the prose without these sentences has no digit that is not named in WORDS.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

import pytest

from harness.files import ROOT
from harness.results.cells import Cell, MethodRuns, at_equal_steps, differences_to_opd, load_cells, matrix
from harness.results.cells import of_common_methods as common
from harness.results.claims import Finding, Verdict, judge, load_claims
from harness.results.statistics import holm, mean_interval

PAGE = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
REGIMES = ("student", "student_latent", "student_style")
BASE, FAST, THIRD = 6e-4, 1.8e-3, 2e-4  # the base rate, three times it, a third of it
WORDS = (  # digits that are no measurement
    r"\[[^\]]*\]\([^)]*\)",  # links
    r"`[^`]*`",
    r"(?<= )\d+\. (?=\*\*)",  # of a list
    r"K1|1\.5B|78 k parameters|95 %|5 %|one-digit|replicates 1 and 2|Replicates 3 to 5|6e-4|temperature 1",
    r"after 15, 30, 45 and 90 of",
    r"\(\d+\)|left out 0|leave out 0|at a third, one and three times|90 steps|TrOPD's Table 1",
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


def signed(finding: Finding) -> str:
    return f"{finding.difference[0]:+.1f}".replace("-", "−")


def interval(finding: Finding) -> str:
    return "[{:.1f}, {:.1f}]".format(*finding.difference[1:]).replace("-", "−")


def in_the_regimes(claim: str) -> str:
    """The differences at the base rate, such as `+6.4, −8.3, +24.5`."""
    return ", ".join(signed(at_base(claim)[regime]) for regime in REGIMES)


def count(claim: str, verdict: Verdict, regimes: tuple[str, ...] = REGIMES) -> int:
    return sum(f.verdict == verdict and f.cell[0] in regimes for f in found()[claim])


def size(finding: Finding) -> str:
    return f"{abs(finding.difference[0]):.1f}"


def span(values, digits: int = 1) -> str:
    values = sorted(values)
    return f"{values[0]:.{digits}f} to {values[-1]:.{digits}f}"


@functools.cache
def scores() -> Mapping[tuple[Cell, str], float]:
    """Mean scores of the map's ten methods in %, by cell and label."""
    return {
        (cell, r.label): 100 * float(matrix(r, sorted(r.evaluations)).mean())
        for cell, runs in common(cells()).items()
        for r in at_equal_steps(runs)
    }


@functools.cache
def against_opd() -> dict[str, tuple[int, int]]:
    """In how many cells of the map a method is resolved above and below OPD, corrected over all of them."""
    pairs = [
        (label, difference)
        for runs in common(cells()).values()
        for label, difference in differences_to_opd({r.label: r for r in at_equal_steps(runs)}).items()
    ]
    counts: dict[str, tuple[int, int]] = {label: (0, 0) for label, _ in pairs}
    for (label, difference), p in zip(pairs, holm([d.p_value for _, d in pairs]), strict=True):
        above, below = counts[label]
        counts[label] = (
            above + (p <= 0.05 and difference.estimate > 0),
            below + (p <= 0.05 and difference.estimate < 0),
        )
    return counts


def one(claim: str, cell: Cell) -> Finding:
    (finding,) = (f for f in found()[claim] if f.cell == cell)
    return finding


def score_interval(cell: Cell, label: str) -> str:
    (runs,) = (r for r in at_equal_steps(cells()[cell]) if r.label == label)
    shown = mean_interval(matrix(runs, sorted(runs.evaluations)))
    return f"{100 * shown.estimate:.1f} [{100 * shown.low:.1f}, {100 * shown.high:.1f}]"


OPD, REOPOLD = "TrOPD is better than OPD", "TrOPD is better than REOPOLD"
NORM, NORM_UNGUIDED = (
    "Handling the outliers lowers the gradient norm",
    "Handling the outliers lowers the gradient norm, without guidance too",
)
NORM_K1 = "K1 makes the gradient larger than the exact reverse KL does, which has the same expectation"
RANDOM = "TrOPD's gate is better than a random gate of the same rate"
GUIDED, GUIDED_FLOOR, GUIDED_MASK = (
    "Guidance helps the forward KL on outliers",
    "Guidance helps the floored reward",
    "Guidance helps the masked reward",
)
FKL_FLOOR, FKL_NOTHING = (
    "On outliers the forward KL is better than a floor on the reward",
    "On outliers the forward KL is better than nothing",
)
STOP_UNGUIDED = "It helps to learn nothing after a rollout's first hard outlier (TrOPD without guidance)"
STOP_FKL = "It helps to learn nothing after a rollout's first hard outlier (forward KL)"
SCALAR, DIRECT, READING = (
    "The forward KL on every token is worse than OPD (as an advantage)",
    "The forward KL on every token is worse than OPD (as a gradient)",
    "The forward KL fails as an advantage, not as a gradient",
)
MASK = "Masking the outliers alone is worse than OPD"
ADDITIVE, ADDITIVE_FLOOR = (
    "The mask does harm, taking the penalty away where the student goes wrong",
    "The forward KL on distrusted tokens does good where the penalty is kept",
)
AOPD_GATE = "AOPD's gate adds to TrOPD"
EXACT = "The single sample of K1 costs something against the exact reverse KL"
FIXED = "OPD is better than a fixed penalty on tokens that the teacher likes less"
TEXTS, OTHERS = "Own samples are better than the teacher's", "Another method is better than the teacher's texts"
MULTIPLY, ENTROPY = (
    "Without the stop the outliers multiply (TrOPD without guidance)",
    "Without the stop the student's entropy grows (TrOPD without guidance)",
)
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


def norms(claim: str) -> str:
    return span((100 * f.means[0] / f.means[1] for f in at_base(claim).values()), 0)


def p_of(finding: Finding) -> str:
    return f"p = {finding.p_value:.3f}"


def map_sentences() -> list[str]:
    score, verdicts = scores(), against_opd()
    broken = [
        (regime, *way) for regime in REGIMES[:2] for way in (("constant", FAST), ("cosine", FAST), ("constant", BASE))
    ]
    fast = [cell for cell in broken if cell[2] == FAST]
    cells_of = {regime: [cell for cell in common(cells()) if cell[0] == regime] for regime in REGIMES}
    best = {
        label: ", ".join(f"{max(score[cell, label] for cell in cells_of[regime]):.1f}" for regime in REGIMES)
        for label in ("opd", "tropd")
    }
    worse = sorted((f for f in found()[OPD] if f.verdict == OPPOSITE), key=lambda f: -f.difference[0])
    means = {claim: [f.means for f in found()[claim] if f.cell in fast] for claim in (MULTIPLY, ENTROPY)}
    assert len(common(cells())) == 18 and {f.cell[0::2] for f in worse} == {("student_latent", FAST)}
    safe = ("fkl_stop", "additive_trust_stop", "seqkd")
    assert all(score[cell, label] > score[cell, "opd"] for cell, _ in score for label in safe)
    assert all(verdicts[label][1] == 0 for label in (*safe, "reverse_kl", "reopold"))
    return [
        f"it ends at {span(score[cell, 'tropd'] for cell in fast)} % in `student` and `student_latent`, under either "
        f"schedule, where OPD has {span((score[cell, 'opd'] for cell in fast), 0)} %; at the constant base rate at "
        f"{score_interval(('student', 'constant', BASE), 'tropd')} and "
        f"{score_interval(('student_latent', 'constant', BASE), 'tropd')} %",
        f"Against OPD it is resolved as better in {count(OPD, CLAIMED)} cell of 18 (`student_style`, decayed, a third "
        f"of the rate, {signed(one(OPD, ('student_style', 'cosine', THIRD)))})",
        f"as worse in {count(OPD, OPPOSITE)} (`student_latent` at three times the rate, by "
        f"{' and '.join(size(f) for f in worse)} points)",
        f"OPD has {best['opd']} %, TrOPD {best['tropd']} %",
        f"TrOPD without guidance has {span(score[cell, 'fkl_outlier'] for cell in broken)} % and the plain forward KL "
        f"{span(score[cell, 'fkl_direct'] for cell in broken)} %",
        f"are {span((100 * a for a, _ in means[MULTIPLY]), 0)} % of unguided TrOPD's tokens, with the stop "
        f"{span((100 * b for _, b in means[MULTIPLY]), 0)} %, and the student's entropy is "
        f"{span(a for a, _ in means[ENTROPY])} nats against {span(b for _, b in means[ENTROPY])}; all eight resolved",
        f"TrOPD's is resolved as lower than OPD's in {count(NORM, CLAIMED)} of 18 cells and as higher in "
        f"{count(NORM, OPPOSITE)}",
        f"are resolved above it in {verdicts['fkl_stop'][0]}, {verdicts['additive_trust_stop'][0]} and "
        f"{verdicts['seqkd'][0]} of them, never below",
        f"`reverse_kl` is resolved above in {verdicts['reverse_kl'][0]} and never below",
        f"REOPOLD is resolved above OPD in {verdicts['reopold'][0]} and never below",
        f"has the higher mean of the two in "
        f"{sum(score[c, 'fkl_stop'] > score[c, 'additive_trust_stop'] for c in {c for c, _ in score})} of 18",
        f"guidance is resolved in {count(GUIDED, CLAIMED)} cell of 18, in `student_style`, and against it in "
        f"{count(GUIDED, OPPOSITE)}",
    ]


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


def section(title: str) -> str:
    """The text under a heading of the page, one line a paragraph or row, without what is embedded."""
    text = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (found_text,) = (part for part in text if part.startswith(title + "\n"))
    return re.sub(r"<!-- begin .*?<!-- end -->", "", found_text.partition("\n")[2], flags=re.DOTALL)


def joined(text: str) -> str:
    return " ".join(text.split())


def unsaid_numbers(title: str, sentences: Iterable[str]) -> list[str]:
    """What a section says in digits beyond these sentences, each of which must stand in it."""
    text = joined(section(title))
    for sentence in sentences:
        assert joined(sentence) in text, sentence
        text = text.replace(joined(sentence), "")
    for words in WORDS:
        text = re.sub(words, "", text)
    return re.findall(r".{0,40}\d.{0,40}", text)


@pytest.mark.parametrize(
    ("title", "sentences"),
    [
        ("The regime map of the earlier edition", map_sentences),
        ("What the earlier edition corrected", changed_rows),
    ],
    ids=["map", "corrected"],
)
def test_every_number_is_that_of_the_runs(title: str, sentences) -> None:
    assert not unsaid_numbers(title, sentences())
