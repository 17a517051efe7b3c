r"""What stands beside a value: a small grammar of units, currencies, percent signs, labels and articles.

    answer = lead value trail
    lead   = [label ... copula] [article] ["negative"] [currency]           "the answer is", "a total of", "$"
    trail  = [percent] [scale] {unit | currency | counted thing | label}    "cm^2", "miles per hour", "ways"

Words that are in none of the closed lists (tasks.math_words) make the answer something else than its value.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from tasks.math_notation import TEXT, matching_brace
from tasks.math_numbers import number, without_thousands
from tasks.math_words import (
    ADJECTIVES,
    ARTICLES,
    BARE_LEADS,
    COPULAS,
    COUNTED,
    CURRENCY_SIGNS,
    CURRENCY_WORDS,
    JOINED,
    JOINERS,
    LEADING_LABELS,
    PERCENT_LABELS,
    PERCENT_WORDS,
    SCALES,
    SIGNS,
    SUBJECTS,
    TOTALS,
    TRAILING_LABELS,
    UNIT_SYMBOLS,
    UNIT_WORDS,
)

_TEXT_GROUP = re.compile(TEXT + r"\s*\*?\s*(?=\{)")
_WORD = re.compile(r"[A-Za-zµμΩÅ]+(?:'[a-z]+)?")
_BARE_WORD = re.compile(r"[A-Za-z]{2,}")
_SPACING = re.compile(r"(?:\\[,;:! ]|~|\s)+")
_COMMAND = re.compile(r"\\(?:[A-Za-z]+|.)", re.S)
_POWER = re.compile(r"\^(?:\{\s*-?[1-9]\s*\}|-?[1-9])")
_BETWEEN_UNITS = re.compile(r"/|\\cdot|\\times|\*|-|\.|,|\(|\)|\\ |'")
_UNIT_FRACTION = re.compile(r"(?<=.)\\frac\{([^{}]*(?:\{[^{}]*\})?[^{}]*)\}\{([^{}]*(?:\{[^{}]*\})?[^{}]*)\}\s*$")
_DEGREE_END = re.compile(r"\^\\circ\s*[CF]?\s*$")
_ENDS = re.compile(r"^(?:\\[,;:! ]|~|\s)+|(?:(?<!\\)\\[,;:! ]|~|\s|[.,;:])+$")
_CENTS = re.compile(r"\$?\s*([0-9,]+)\s*(?:dollars?)?\s*(?:and|\\land|,)?\s+([0-9]{1,2})\s*cents?")
_BARE_RATIO = re.compile(r"(?<=[0-9])\s+([A-Za-z]{1,3})/([A-Za-z]{1,3})(?:\^(?:2|\{2\}))?$")  # 10 m/s
_STOP = re.compile(r"[.,:;]\s*")


@dataclass(frozen=True)
class Item:
    """A piece of an answer: a word, or math as it stands."""

    text: str
    is_word: bool


@functools.lru_cache(maxsize=4096)
def bare_value(text: str) -> str | None:
    """The value of an answer in plain notation, without its neighbours; None where something beside it is unknown.

    A percent sign stays, as `%`. Words that count ("3 thousand") or turn the sign ("negative 5") are applied.
    """
    if cents := _CENTS.fullmatch(flat(text)):
        return f"{cents[1].replace(',', '')}.{int(cents[2]):02d}"
    if (bare := _BARE_RATIO.search(text)) and {bare[1], bare[2]} <= UNIT_SYMBOLS:
        text = text[: bare.start()]
    items = _items(text)
    first = next((i for i, item in enumerate(items) if not item.is_word and not _is_mark(item.text)), None)
    if first is None:
        return None
    last = next((i for i in range(first + 1, len(items)) if items[i].is_word or _is_sign(items[i].text)), len(items))
    value = "".join(item.text for item in items[first:last])
    lead = _lead(items[:first])
    trail = _trail(items[last:])
    if lead is None or trail is None:
        return None
    if (ratio := _UNIT_FRACTION.search(value)) and is_unit_phrase(ratio[1]) and is_unit_phrase(ratio[2]):
        value = value[: ratio.start()]
    value = _ENDS.sub("", _DEGREE_END.sub("", _ENDS.sub("", value)))
    percent, scale = trail
    if scale != 1:
        exact = number(without_thousands(value))
        if exact is None:
            return None
        value = _written(exact * scale)
    sign = "-" if lead < 0 else ""
    return f"{sign}{value}{'%' if percent else ''}" if value else None


def flat(text: str) -> str:
    r"""The text with `\text{...}` opened and TeX's spaces as spaces."""
    for _ in range(4):
        opened = re.sub(TEXT + r"\s*\*?\s*\{([^{}]*)\}", r" \1 ", text)
        if opened == text:
            break
        text = opened
    return re.sub(r"\s+", " ", _SPACING.sub(" ", text).replace("\\$", "$")).strip()


def is_unit_phrase(text: str) -> bool:
    r"""Whether the text is a unit and nothing else: `\text{m}`, `km`, `\text{s}^2`."""
    items = _items(text)
    return any(item.is_word for item in items) and _trail(items) == (False, 1)


def _is_sign(piece: str) -> bool:
    return piece in CURRENCY_SIGNS or piece in (r"\$", "%", r"\%")


def _is_mark(piece: str) -> bool:
    return _is_sign(piece) or _STOP.fullmatch(piece.strip()) is not None


def _items(text: str) -> list[Item]:
    """Words and math in their order. Single letters outside of text are variables, hence math."""
    items: list[Item] = []
    math: list[str] = []

    def flush() -> None:
        if "".join(math).strip():
            items.append(Item("".join(math), False))
        math.clear()

    position = 0
    while position < len(text):
        group = _TEXT_GROUP.match(text, position)
        if group and (close := matching_brace(text, group.end())) is not None:
            flush()
            items += _in_text(text[group.end() + 1 : close])
            position = close + 1
        elif text[position] in CURRENCY_SIGNS + "%" or text.startswith((r"\$", r"\%"), position):
            flush()
            sign = text[position : position + 1 + (text[position] == "\\")]
            items.append(Item(sign, False))
            position += len(sign)
        elif text[position] == "{" and (close := matching_brace(text, position)) is not None:
            math.append(text[position : close + 1])
            position = close + 1
        elif command := _COMMAND.match(text, position):
            math.append(command[0])
            position = command.end()
        elif (word := _BARE_WORD.match(text, position)) and is_known(word[0]):
            flush()
            items.append(Item(word[0], True))
            position = word.end()
        else:
            math.append(text[position])
            position += 1
    flush()
    return items


def _in_text(content: str) -> list[Item]:
    r"""The items of a `\text{...}`: its words, and what is not a word as math."""
    items: list[Item] = []
    position = 0
    for match in _WORD.finditer(content):
        items += _items(content[position : match.start()])
        is_word = len(match[0]) > 1 or match[0] in UNIT_SYMBOLS or match[0].lower() in JOINERS
        items.append(Item(match[0], is_word))
        position = match.end()
    return items + _items(content[position:])


@functools.lru_cache(maxsize=4096)
def is_known(word: str) -> bool:
    """Whether the word is in a closed list; only such words count as words where they stand bare in math."""
    small = word.lower()
    return (
        word in UNIT_SYMBOLS
        or any(small in known for known in (UNIT_WORDS, CURRENCY_WORDS, PERCENT_WORDS, PERCENT_LABELS, COUNTED))
        or any(small in known for known in (TRAILING_LABELS, ADJECTIVES))
        or any(small in known for known in (LEADING_LABELS, ARTICLES, COPULAS, BARE_LEADS, SIGNS, SCALES, JOINERS))
    )


def _lead(items: Sequence[Item]) -> int | None:
    """What stands before the value: 1, or -1 where it turns the sign; None where it is not in the grammar."""
    words = [
        item.text.strip().lower() for item in items if not _is_sign(item.text) and item.text.strip() not in (".", ",")
    ]
    sign = 1
    while words and words[-1] in CURRENCY_WORDS:
        words.pop()
    if words and words[-1] in SIGNS:
        words.pop()
        sign = -1
    while words and words[-1] in ARTICLES | BARE_LEADS:
        words.pop()
    if not words:
        return sign
    if words[-2:] == ["equal", "to"]:
        words.pop()
    if words[-1] == "of" and len(words) > 1 and words[-2] in TOTALS:
        words = words[:-2]
        while words and words[-1] in ARTICLES:
            words.pop()
        return sign if not words or _is_subject(words) else None
    return sign if words[-1] in COPULAS and _is_subject(words) else None


def _is_subject(words: Sequence[str]) -> bool:
    known = (LEADING_LABELS, ARTICLES, COUNTED, BARE_LEADS, COPULAS, SUBJECTS, CURRENCY_WORDS)
    return all(any(word in group for group in known) for word in words)


def _trail(items: Sequence[Item]) -> tuple[bool, int] | None:
    """What stands behind the value: whether it is a percentage, and what to multiply it by; None outside of the
    grammar.
    """
    percent, scale, begun = False, 1, False
    position = 0
    while position < len(items):
        item = items[position]
        word, small = item.text.strip(), item.text.strip().lower()
        if word in ("%", r"\%") or small in PERCENT_WORDS:
            if percent or begun:
                return None
            percent = True
        elif small in SCALES and not begun:
            scale *= SCALES[small]
        elif item.is_word and small in JOINERS and position + 1 < len(items) and items[position + 1].is_word:
            if not _joins(items[position + 1].text):
                return None
            begun = True
            position += items[position + 1].text.lower() in JOINED
        elif item.is_word:
            noun = items[position + 1].text if position + 1 < len(items) else ""
            if not (
                _is_neighbour(word)
                or (percent and small in PERCENT_LABELS)
                or (small in ADJECTIVES and _is_neighbour(noun))
            ):
                return None
            begun = True
        elif not _is_sign(word) and not _is_of_unit(word, begun):
            return None
        position += 1
    return percent, scale


def _joins(word: str) -> bool:
    return word.lower() in JOINED | JOINERS or _is_neighbour(word)


def _is_neighbour(word: str) -> bool:
    small = word.lower()
    return word in UNIT_SYMBOLS or any(
        small in known for known in (UNIT_WORDS, CURRENCY_WORDS, COUNTED, TRAILING_LABELS)
    )


def _is_of_unit(math: str, begun: bool) -> bool:
    r"""Powers and what joins units (`^2`, `/`, `\cdot`), full stops, and a fraction of units."""
    rest = _SPACING.sub("", math)
    if begun:
        rest = _POWER.sub("", rest)
    rest = _BETWEEN_UNITS.sub("", rest)
    return not rest


def _written(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
