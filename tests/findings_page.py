"""docs/findings.md for its tests: its sections without their tables, and the claims in the words of claims.yaml.

What is left of a section without the sentences that its test makes has no digit that is not named in WORDS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from harness.files import ROOT

PAGE = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
REGIMES = ("student", "student_latent", "student_style")
BASE, FAST = 6e-4, 1.8e-3  # the base rate, three times it
WORDS = (  # digits that are no measurement
    r"\[[^\]]*\]\([^)]*\)",  # links
    r"`[^`]*`",
    r"(?<= )\d+\. (?=\*\*)",  # of a list
    r"K1|1\.5B|78 k parameters|95 %|5 %|one-digit|replicates 1 and 2|Replicates 3 to 5|6e-4|temperature 1",
    r"after 15, 30, 45 and 90 of",
    r"of 15 cells means the others, of 18 all|900 runs|, of 18 cells:",
    r"\(\d+\)|left out 0|leave out 0|at a third, one and three times|90 steps|TrOPD's Table 1",
)


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
TEXTS, OTHERS = "Own samples are better than the teacher's", "Another method is better than the teacher's texts"
MULTIPLY, ENTROPY = (
    "Without the stop the outliers multiply (TrOPD without guidance)",
    "Without the stop the student's entropy grows (TrOPD without guidance)",
)


def span(values, digits: int = 1) -> str:
    values = sorted(values)
    return f"{values[0]:.{digits}f} to {values[-1]:.{digits}f}"


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
