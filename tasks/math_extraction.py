r"""The final answer of a response, as it was written: the last box after the thinking, or what it states without a box.

Boxes that stand together, one for each solution (`x = \boxed{1} or x = \boxed{-2}`), are one answer; so are the boxes
of a tuple, `(\boxed{3}, \boxed{4})`.
"""

import re
from dataclasses import dataclass

from tasks.math_neighbours import bare_value
from tasks.math_notation import notation
from tasks.math_numbers import NUMBER, value_of

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

# what opens or closes a group, and escapes
_GROUPS = re.compile(r"\\(?:boxed|fbox)\s*\{|\\\\(?!boxed|fbox)|\\[{}]|[{}]")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s*([+-]?[0-9][0-9.,]*)")  # TeX without braces
# what may stand between the boxes of one answer
_BETWEEN = re.compile(
    r"(?:\n\s*[-*•]\s|\s|\$|\\[,;:! ]|\\quad|\\qquad|\\[()\[\]]|\*|&|\\text\s*\{\s*(?:,?\s*(?:and|or)|,)\s*\}|,|;|\band\b|\bor\b"
    r"|\\?[A-Za-z](?:_\{?\w\}?)?\s*=)*"
)
_SEPARATOR = re.compile(r",|;|\band\b|\bor\b|\n\s*[-*•]\s")
_MAX_BETWEEN = 60  # characters
_NAME_BEFORE = re.compile(r"([A-Za-z](?:_\{?\w\}?)?)\s*=[\s$]*$")
_SPECIAL_TOKEN = re.compile(r"(?:<\|[^<>|]{1,40}\|>|<｜[^<>｜]{1,40}｜>|</s>|<eos>|<pad>|<end_of_turn>|\[EOS\])$")
_MAX_SPECIAL_CHARS = 44
_ANSWER_TAG = re.compile(r"<(?:final_?)?answer>(?P<value>[^<>]{1,400})</(?:final_?)?answer>", re.I)
_HASHES = re.compile(r"####[ \t]*(\S[^\n]*)")  # how GSM8K writes its golds
_CALCULATOR = re.compile(r"<<[^<>\n]{1,200}>>")  # GSM8K's annotations
_ANSWER_WORD = re.compile(r"\banswer\b", re.I)
_ANSWER = re.compile(r"\banswer\b(?P<between>[^\n.=]{0,60}?)(?:\bis\b|\bare\b|:|=)[ \t]*:?(?P<value>[^\n]+)", re.I)
_HOPE = re.compile(r"\.?\s*I hope (?:it|this) is correct\.?.*$", re.I)
_SENTENCE_END = re.compile(r"(?<=[^\s])[.!?](?=\s|$)")
_REASON = re.compile(r",?\s+(?:because|since|as|which|where|so|but|when|assuming|and I)\b.*$")
_DISPLAY_AT_END = re.compile(r"(?:\$\$|\\\[)\s*\n(?P<value>[^$\[\]\n]{1,200})\n\s*(?:\$\$|\\\])\.?$")
_MATH_SPAN = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$(?![\s$])([^$\n]*?[^\s$\\])\$(?![0-9])|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_ENDS_WITH = re.compile(r"(?:\b(?:is|are|gives?|equals?|get|obtain|yields?)\b|=)\s*(?P<value>[^=]+)$", re.I)
_BOLD = re.compile(r"\*\*([^*\n]{1,80})\*\*")
_AMOUNT = rf"[$€£¥]?\s?{NUMBER}(?:,[0-9]{{3}})*(?:\.[0-9]+)?\s?[%€]?"
# a sentence that ends in a value: verb, perhaps "a profit of", the value, and what it is of
_STATES = re.compile(
    r"\b(?:is|are|was|were|has|have|had|makes?|made|costs?|earns?|earned|pays?|paid|spends?|spent|needs?|gets?|got|gives?|"
    r"takes?|took|uses?|used|sold|saves?|saved|eats?|ate|reads?|leaves?|left|equals?|receives?|received|owes?|"
    r"(?:profit|total|cost|price|sum|amount|salary|distance)\sof)\b"
    rf"\s+(?P<value>{_AMOUNT})(?P<rest>[^0-9]*)$",
    re.I,
)
# in a sentence around a number they say that it is not the answer, or not exactly
_DENIES = re.compile(
    r"\b(?:not|never|cannot|no|nor|neither|without|except|unless|least|most|about|approximately|roughly|nearly|almost|"
    r"around|between|over|under|above|below|twice|half|double|triple|if|or|than)\b|n't\b",
    re.I,
)
_MAX_STATED_CHARS = 200  # of a final answer without a box; longer is prose
_MAX_VALUE_CHARS = 10 * _MAX_STATED_CHARS  # looked at: patterns that begin with blanks take quadratic time in them


@dataclass(frozen=True)
class Box:
    """A balanced box in a text: where it begins, and where its content begins and ends."""

    start: int
    inside: int
    end: int


def after_thinking(response: str) -> str | None:
    """What follows the last `</think>`; None if thinking was opened and not closed.

    A chat template may open the thinking itself, so a close without an open is normal.
    """
    answer_text = response.rpartition(THINK_CLOSE)[2]
    return None if THINK_OPEN in answer_text else answer_text


def final_answer(text: str) -> str | None:
    """The last box or boxes; where no box was begun, the answer that the text states."""
    if _BOX.search(text):
        if (boxed := last_boxed(text)) is not None:
            return _with_neighbours(text) or boxed
        bare = _BARE_BOX.findall(text)
        return bare[-1].rstrip(".,") if bare else None  # cut off inside the box, or nothing in it
    return stated_answer(text)


def last_boxed(text: str) -> str | None:
    r"""The content of the last balanced `\boxed{...}` (or `\fbox{...}`), stripped; None without one or if empty."""
    found = boxes(text)
    last = max(found, key=lambda box: box.inside, default=None)
    return (text[last.inside : last.end].strip() or None) if last else None


def boxes(text: str) -> list[Box]:
    """Every balanced box, in the order of their ends."""
    open_groups: list[re.Match[str]] = []
    found = []
    for mark in _GROUPS.finditer(text):
        if mark[0] == "}":
            opened = open_groups.pop() if open_groups else mark
            if len(opened[0]) > 1:
                found.append(Box(opened.start(), opened.end(), mark.start()))
        elif mark[0].endswith("{") and mark[0] != r"\{":
            open_groups.append(mark)
    return found


def _with_neighbours(text: str) -> str | None:
    """The last box with those that stand beside it as parts of one answer; None where it stands alone."""
    found = boxes(text)
    group = [found[-1]]
    for box in reversed(found[:-1]):
        between = text[box.end + 1 : group[0].start]
        if box.end > group[0].start or len(between) > _MAX_BETWEEN:
            break
        if not (_BETWEEN.fullmatch(between) and _SEPARATOR.search(between)):
            break
        group.insert(0, box)
    contents = [text[box.inside : box.end].strip() for box in group]
    if len(set(contents)) < 2 or not all(contents):
        return None
    before, behind = text[: group[0].start].rstrip("$ "), text[group[-1].end + 1 :].lstrip("$ ")
    joined = ", ".join(contents)
    names = {match[1] for box in group if (match := _NAME_BEFORE.search(text[max(0, box.start - 20) : box.start]))}
    is_tuple = (before.endswith("(") and behind.startswith((")", r"\right)"))) or len(names) == len(group)
    return f"({joined})" if is_tuple else joined


def without_special_tokens(text: str) -> str:
    """Without the tokens that end a text, such as <|im_end|>."""
    end = len(text)
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        token = _SPECIAL_TOKEN.search(text[max(0, end - _MAX_SPECIAL_CHARS) : end])
        if token is None:
            return text[:end]
        end -= len(token[0])


def stated_answer(text: str) -> str | None:
    """A final answer without a box: tagged, after "####", "answer is" or "Answer:", or the value that the last line
    ends in.
    """
    text = _CALCULATOR.sub("", without_special_tokens(text)).strip()
    if tags := _ANSWER_TAG.findall(text):
        return tags[-1].strip() or None
    if hashes := _HASHES.findall(text):
        return _value(hashes[-1])
    for word in reversed(list(_ANSWER_WORD.finditer(text))):  # from the last one: a line may state several
        if stated := _ANSWER.match(text, word.start()):
            return _value(stated["value"])
    if display := _DISPLAY_AT_END.search(text, max(0, len(text) - 2 * _MAX_STATED_CHARS)):
        return display["value"].strip().rpartition("=")[2].strip()
    last_line = text.rsplit("\n", 1)[-1].strip()
    return None if len(last_line) > _MAX_STATED_CHARS else _of_last_line(last_line)


def _of_last_line(last_line: str) -> str | None:
    """The value that a line states: the line itself, its last formula, its end, or the bold number in it."""
    line = last_line.replace("*", "").strip().rstrip(".。!").strip()
    if _is_number(line):
        return line
    bold = [span for span in _BOLD.findall(last_line) if _is_number(span.strip(" .:"))]
    if bold and not _DENIES.search(line):
        return str(bold[-1]).strip(" .:")
    spans = [next(group for group in match.groups() if group) for match in _MATH_SPAN.finditer(line)]
    if spans and line.endswith(("$", r"\)", r"\]")):
        ends = _ENDS_WITH.search(spans[-1])
        return ends["value"].strip() if ends else spans[-1].strip()
    ends = _ENDS_WITH.search(line)
    if ends and _is_number(ends["value"]):
        return ends["value"].strip()
    sentence = re.split(r"(?<=[.!?])\s", line)[-1]
    stated = _STATES.search(sentence)
    if stated and not _DENIES.search(sentence) and len(re.findall(NUMBER, stated["value"].replace(",", ""))) == 1:
        return (
            f"{stated['value'].strip()}{stated['rest'].rstrip()}"
            if _is_number(stated["value"] + stated["rest"])
            else stated["value"].strip()
        )
    value = bare_value(notation(line))
    return line if value is not None and value_of(value) is not None else None


def _is_number(text: str) -> bool:
    """Whether the text is a number and what may stand beside one."""
    value = bare_value(notation(text.strip()))
    return value is not None and value_of(value) is not None


def _value(rest_of_line: str) -> str | None:
    """The value at the beginning of what follows "the answer is"."""
    rest = _HOPE.sub("", rest_of_line[:_MAX_VALUE_CHARS].replace("**", "")).strip().strip("*_ ")
    span = _MATH_SPAN.match(rest)
    if span:
        return next(group for group in span.groups() if group).strip()
    end = _SENTENCE_END.search(rest)
    value = _REASON.sub("", rest[: end.start()] if end else rest).strip()
    return value[:_MAX_STATED_CHARS] or None
