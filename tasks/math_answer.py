"""The grader of math answers: pure functions from a response and a gold answer to a verdict.

Two answers are equal when their canonical forms are: numbers by exact value ("025" = 25 = 25.0), everything else as
text without typography. `canonical` is the only notion of equality, so that grading and voting cannot disagree.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Reason = Literal["equal", "different", "no_box", "unfinished_thinking"]

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_MAX_NUMBER_CHARS = 400  # longer digit strings are compared as text: nobody's answer, and quadratic to parse
_MAX_ANSWER_CHARS = 2_000  # longer answers (a model in a loop) are compared as they stand

_GROUPS = re.compile(
    r"\\(?:boxed|fbox)\s*\{|\\\\(?!boxed|fbox)|\\[{}]|[{}]"
)  # what opens or closes a group, and escapes
_WRAPPER = r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mbox|operatorname)\s*\{([^{}]*)\}"
_UNIT_WRAPPER = re.compile(r"(?<=[0-9.}])\s*(?:\\[,;:! ])*\s*" + _WRAPPER + r"(?:\s*\^\s*(?:\{[0-9]\}|[0-9]))?\s*$")
_DEGREES = re.compile(r"(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree|\\circ|°)")
_TYPOGRAPHY = re.compile(r"\\(?:left|right|displaystyle|bigl?|bigr?)(?![A-Za-z])")
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:(?:,|\{,\}|\\,|\\!|,\\!|,\\,)[0-9]{3})+(?:\.[0-9]*)?")
_SPACES = re.compile(r"(?:\\[,;:! ]|\\quad|\\qquad|~|\s)+")
_ASSIGNED = re.compile(r"^\s*\\?[A-Za-z][A-Za-z0-9_{}^+\\() ]*=(?P<value>[^=]+)$")
_ASSIGNED_REVERSED = re.compile(r"^(?P<value>[^=A-Za-z\\]+)=\s*[A-Za-z](?:_\{?\w+\}?)?\s*$")
_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PLAIN_UNIT = re.compile(rf"^({_NUMBER})\s+([A-Za-z]{{2,}}(?:\s[A-Za-z]+)?)(?:\^\{{?[23]\}}?)?$")
_NOT_UNITS = {"or", "and", "to", "plus", "minus", "times", "mod", "over"}  # words that join two values


@dataclass(frozen=True)
class Verdict:
    """What the grader thinks of one response."""

    correct: bool
    extracted: str | None  # the content of the last box, as written; None: no answer was given
    reason: Reason


def grade(response: str, gold: str) -> Verdict:
    """Compares the response's last boxed answer with `gold`. Thinking that was never finished gives no answer."""
    answer_text = after_thinking(response)
    if answer_text is None:
        return Verdict(False, None, "unfinished_thinking")
    extracted = last_boxed(answer_text)
    if extracted is None:
        return Verdict(False, None, "no_box")
    correct = canonical(extracted) == canonical(gold)
    return Verdict(correct, extracted, "equal" if correct else "different")


def majority_is_correct(answers: Sequence[str | None], gold: str) -> bool:
    """Whether the most frequent answer equals `gold`.

    Samples without an answer do not vote; of equally frequent answers the one given first wins.
    """
    votes: dict[str, int] = {}
    for answer in answers:
        if answer is not None:
            key = canonical(answer)
            votes[key] = votes.get(key, 0) + 1
    return bool(votes) and max(votes, key=votes.__getitem__) == canonical(gold)


def after_thinking(response: str) -> str | None:
    """What follows the last `</think>`; None if thinking was opened and not closed.

    A chat template may open the thinking itself, so a close without an open is normal.
    """
    answer_text = response.rpartition(THINK_CLOSE)[2]
    return None if THINK_OPEN in answer_text else answer_text


def last_boxed(text: str) -> str | None:
    r"""The content of the last balanced `\boxed{...}` (or `\fbox{...}`), stripped; None without one or if empty."""
    open_groups: list[re.Match[str]] = []
    last: tuple[int, int] | None = None  # where the content of the box begins and ends
    for mark in _GROUPS.finditer(text):
        if mark[0] == "}":
            opened = open_groups.pop() if open_groups else mark
            if len(opened[0]) > 1 and (last is None or opened.end() > last[0]):
                last = opened.end(), mark.start()
        elif mark[0].endswith("{") and mark[0] != r"\{":
            open_groups.append(mark)
    return (text[last[0] : last[1]].strip() or None) if last else None


@functools.lru_cache(maxsize=4096)  # the same few answers come again and again
def canonical(answer: str) -> str:
    """The form in which answers are compared: the exact value of a number, otherwise the bare text.

    Spaces are dropped, except between digits: "2 5" is not 25.
    """
    if len(answer) > _MAX_ANSWER_CHARS:
        return answer
    text = _plain(answer)
    value = number(text)
    return str(value) if value is not None else re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text)


def number(text: str) -> Fraction | None:
    """The exact value of an integer or a decimal, in percent if it says so; None for anything else."""
    match = re.fullmatch(rf"({_NUMBER})\s*(\\?%)?", text)
    if match is None or len(text) > _MAX_NUMBER_CHARS:
        return None
    return Fraction(match[1]) / (100 if match[2] else 1)


def _plain(answer: str) -> str:
    """Strips math mode, wrappers, units, separators and a variable that is set to the value."""
    text = re.sub(r"^(?:\$+|\\\(|\\\[)|(?:\$+|\\\)|\\\])$", "", answer.strip()).strip()
    text = text.replace("\\$", "").replace("−", "-")
    text = _DEGREES.sub("", _TYPOGRAPHY.sub("", text))
    text = _UNIT_WRAPPER.sub("", text)
    while (unwrapped := re.sub(_WRAPPER, r" \1 ", text)) != text:
        text = unwrapped
    text = text.strip().rstrip(".,").strip()
    for pattern in (_ASSIGNED, _ASSIGNED_REVERSED):
        if match := pattern.match(text):
            text = match["value"].strip()
    if _GROUPED.fullmatch(text):
        text = re.sub(r"[^0-9.+-]", "", text)
    text = _SPACES.sub(" ", text).strip()
    unit = _PLAIN_UNIT.match(text)
    if unit and not _NOT_UNITS & set(unit[2].lower().split()):
        text = unit[1]
    return re.sub(r"^([+-])\s+(?=[0-9.])", r"\1", text)
