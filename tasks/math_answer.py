"""The grader of math answers: pure functions from a response and a gold answer to a verdict.

The answer is the content of the last balanced box after the thinking; without any box, an answer that the response
states as its final one. Numbers are equal when their exact values are ("025" = 25 = 25.0); what is not a number is
compared as text without typography, and then by math-verify.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.math_equivalence import equivalence
from tasks.math_forms import (
    MAX_ANSWER_CHARS,
    assignment,
    canonical,
    choice_letter,
    is_variable,
    is_words,
    number,
    number_in_prose,
    numeral_parts,
    plain,
    squeezed,
    without_choice,
)

Reason = Literal["equal", "different", "timeout", "no_answer", "unfinished_thinking"]

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

_GROUPS = re.compile(
    r"\\(?:boxed|fbox)\s*\{|\\\\(?!boxed|fbox)|\\[{}]|[{}]"
)  # what opens or closes a group, and escapes
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s*([+-]?[0-9][0-9.,]*)")  # TeX without braces
_SPECIAL_TOKEN = re.compile(r"(?:<\|[^<>|]{1,40}\|>|<｜[^<>｜]{1,40}｜>|</s>|<eos>|<end_of_turn>)\Z")
_SPECIAL_TOKEN_CHARS = 44  # of the longest
_HASHES = re.compile(r"####[ \t]*(\S[^\n]*)")  # how GSM8K writes its golds
_ANSWER_WORD = re.compile(r"\banswer\b", re.I)
_ANSWER = re.compile(r"\banswer\b(?P<between>[^\n.=]{0,60}?)(?:\bis\b|\bare\b|:|=)[ \t]*:?(?P<value>[^\n]+)", re.I)
_HOPE = re.compile(r"\.?\s*I hope (?:it|this) is correct\.?.*$", re.I)
_SENTENCE_END = re.compile(r"(?<=[^\s])[.!?](?=\s|$)")
_REASON = re.compile(r",?\s+(?:because|since|as|which|where|so|but|when|assuming|and I)\b.*$")
_DISPLAY_AT_END = re.compile(r"(?:\$\$|\\\[)\s*\n(?P<value>[^$\[\]\n]{1,200})\n\s*(?:\$\$|\\\])\.?$")
_MATH_SPAN = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_ENDS_WITH = re.compile(r"(?:\b(?:is|are|gives?|equals?|get|obtain|yields?)\b|=)\s*(?P<value>[^=]+)$", re.I)
_MAX_STATED_CHARS = 200  # of a final answer without a box; longer is prose
_MAX_VALUE_CHARS = 10 * _MAX_STATED_CHARS  # looked at: patterns that begin with blanks take quadratic time in them


@dataclass(frozen=True)
class Verdict:
    """What the grader thinks of one response."""

    correct: bool
    extracted: str | None  # the answer as written; None: no answer was given
    reason: Reason


def grade(response: str, gold: str) -> Verdict:
    """Compares the response's final answer with `gold`. Thinking that was never finished gives no answer."""
    answer_text = after_thinking(response)
    if answer_text is None:
        return Verdict(False, None, "unfinished_thinking")
    extracted = final_answer(answer_text)
    if extracted is None:
        return Verdict(False, None, "no_answer")
    reason = compare(gold, extracted)
    return Verdict(reason == "equal", extracted, reason)


def grade_boxed(response: str, gold: str) -> Verdict:
    """Like `grade`, for tasks whose answers are numbers and always boxed: no statement without a box, no math-verify."""
    answer_text = after_thinking(response)
    if answer_text is None:
        return Verdict(False, None, "unfinished_thinking")
    extracted = last_boxed(answer_text)
    if extracted is None:
        return Verdict(False, None, "no_answer")
    correct = canonical(extracted) == canonical(gold)
    return Verdict(correct, extracted, "equal" if correct else "different")


def majority_is_correct(answers: Sequence[str | None], gold: str) -> bool:
    """Whether the most frequent answer equals `gold`; answers that mean the same vote together.

    Samples without an answer do not vote; of equally frequent answers the one given first wins.
    """
    votes: list[tuple[str, int]] = []
    for answer in answers:
        if answer is None:
            continue
        for i, (candidate, count) in enumerate(votes):
            if compare(candidate, answer) == "equal":
                votes[i] = candidate, count + 1
                break
        else:
            votes.append((answer, 1))
    return bool(votes) and compare(gold, max(votes, key=lambda vote: vote[1])[0]) == "equal"


def compare(gold: str, answer: str) -> Literal["equal", "different", "timeout"]:
    """Whether two answers are the same; the gold decides what a bare number or a bare value stands for."""
    if max(len(gold), len(answer)) > MAX_ANSWER_CHARS:
        return "equal" if gold == answer else "different"
    verdict = _compare_forms(gold, answer)
    if verdict != "different":
        return verdict
    return "equal" if any(_compare_forms(gold, form) == "equal" for form in _other_readings(gold, answer)) else verdict


def _other_readings(gold: str, answer: str) -> list[str]:
    """What else a box may mean: `(C) 25` is 25 or the option C, and a phrase around one number is that number."""
    text = plain(answer)
    readings = []
    if split := without_choice(text):
        readings += [split[0]] if choice_letter(plain(gold)) else [split[1]]
    if (value := number_in_prose(text)) and value != text:
        readings.append(value)
    return readings


def _compare_forms(gold: str, answer: str) -> Literal["equal", "different", "timeout"]:
    gold_text, text = plain(gold), plain(answer)
    if not text:
        return "different"
    if squeezed(gold_text) == squeezed(text):
        return "equal"
    gold_name, gold_value = assignment(gold_text)
    name, value = assignment(text)
    if gold_name is not None and (not is_variable(gold_name) or name not in (None, gold_name)):
        gold_value, value = gold_text, text  # an equation, or another variable: the sides belong together
    gold_value, value = plain(gold_value), plain(value)
    if squeezed(gold_value) == squeezed(value):
        return "equal"
    exact = number(gold_value), number(value)
    if exact[0] is not None and exact[1] is not None:
        # a percent sign that the gold has may be left out like any unit; one that it lacks may not be added
        bare = exact[0] * 100 if gold_value.endswith("%") and not value.endswith("%") else None
        return "equal" if exact[1] in (exact[0], bare) else "different"
    letter = choice_letter(gold_value)
    if letter and letter == choice_letter(value):
        return "equal"
    if is_words(gold) or is_words(answer):
        return "equal" if squeezed(gold_value).casefold() == squeezed(value).casefold() else "different"
    if numeral_parts(gold_value) or numeral_parts(value):
        return "different"
    return equivalence(gold_text, text)


def after_thinking(response: str) -> str | None:
    """What follows the last `</think>`; None if thinking was opened and not closed.

    A chat template may open the thinking itself, so a close without an open is normal.
    """
    answer_text = response.rpartition(THINK_CLOSE)[2]
    return None if THINK_OPEN in answer_text else answer_text


def final_answer(text: str) -> str | None:
    """The last box; where no box was begun, the answer that the text states."""
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed
    if _BOX.search(text):
        bare = _BARE_BOX.findall(text)
        return bare[-1].rstrip(".,") if bare else None  # cut off inside the box, or nothing in it
    return stated_answer(text)


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


def stated_answer(text: str) -> str | None:
    """A final answer without a box: after "####", after "answer is" or "Answer:", or the value that the last line ends in."""
    text = _without_special_tokens(text).strip()
    if hashes := _HASHES.findall(text):
        return _value(hashes[-1])
    for word in reversed(list(_ANSWER_WORD.finditer(text))):  # from the last one: a line may state several
        if stated := _ANSWER.match(text, word.start()):
            return _value(stated["value"])
    if display := _DISPLAY_AT_END.search(text, max(0, len(text) - 2 * _MAX_STATED_CHARS)):
        return assignment(display["value"].strip())[1]
    last_line = text.rsplit("\n", 1)[-1].strip()
    if len(last_line) > _MAX_STATED_CHARS:
        return None
    line = last_line.replace("*", "").strip().rstrip(".").strip()
    if number(plain(line)) is not None:
        return line
    spans = [next(group for group in match.groups() if group) for match in _MATH_SPAN.finditer(line)]
    if spans and line.endswith(("$", r"\)", r"\]")):
        ends = _ENDS_WITH.search(spans[-1])
        return ends["value"].strip() if ends else spans[-1].strip()
    ends = _ENDS_WITH.search(line)
    if ends and number(plain(ends["value"])) is not None:
        return ends["value"].strip()
    return number_in_prose(plain(line))


def _without_special_tokens(text: str) -> str:
    """Without those at its end, found from there: a response may hold a million blanks in a row."""
    end = len(text)
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        token = _SPECIAL_TOKEN.search(text, max(0, end - _SPECIAL_TOKEN_CHARS), end)
        if token is None:
            return text[:end]
        end = token.start()


def _value(rest_of_line: str) -> str | None:
    """The value at the beginning of what follows "the answer is"."""
    rest = _HOPE.sub("", rest_of_line[:_MAX_VALUE_CHARS].replace("**", "")).strip().strip("*_ ")
    span = _MATH_SPAN.match(rest)
    if span:
        return next(group for group in span.groups() if group).strip()
    end = _SENTENCE_END.search(rest)
    value = _REASON.sub("", rest[: end.start()] if end else rest).strip()
    return value[:_MAX_STATED_CHARS] or None
