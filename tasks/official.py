"""Mode `official`: the verdicts of the graders behind published numbers, to the letter, with all that is wrong with
them.

    math             math-verify 0.9.0 with its defaults, on the whole response (lighteval and Open-R1 use it)
    multiple choice  OpenAI's simple-evals (GPQA): the first "Answer: X" of the whole response

Neither knows of thinking: what stands in it counts.
"""

import re

from tasks import choice_answer, math_answer
from tasks.math_equivalence import official_verdict

_SIMPLE_EVALS = re.compile(r"(?i)Answer[ \t]*:[ \t]*\$?([A-D])\$?")  # ANSWER_PATTERN_MULTICHOICE


def math_verdict(response: str, gold: str) -> math_answer.Verdict:
    """math-verify's verdict; `extracted` is what it read, in sympy's notation."""
    verdict, read = official_verdict(gold, response)
    reason = "no_answer" if verdict == "different" and read is None else verdict
    return math_answer.Verdict(verdict == "equal", read, reason)


def choice_verdict(response: str, gold: str) -> choice_answer.Verdict:
    """simple-evals' verdict."""
    match = _SIMPLE_EVALS.search(response)
    return choice_answer.verdict_of(match[1].upper() if match else None, gold)
