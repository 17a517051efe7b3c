"""The exact value of an answer that is a number: decimals, fractions, mixed numbers, numerals of
any base, percentages.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

_MAX_CHARS = 400  # longer digit strings are compared as text: nobody's answer, and quadratic to parse
_MAX_EXPONENT = 400  # of a power of ten in scientific notation; longer numbers are left as they stand

NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
# between groups of three digits: a comma, TeX's thin spaces, or both; a plain space makes two numbers of one
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:(?:,|\\[,;: ]|~|\\!|,\\!|,\\,|\{\\,\})\s?[0-9]{3})+(?:\.[0-9]*)?")
_SPACED_COMMA = re.compile(r",\s[0-9]")  # "1, 000" is a list
_DECIMAL = re.compile(
    rf"({NUMBER})(?:[eE]([+-]?[0-9]{{1,3}})|(?:\\times|\\cdot|\*|×)10(?:\^|\*\*)[{{(]?([+-]?[0-9]{{1,3}})[)}}]?)?"
)
_FRACTION = re.compile(r"([+-]?)([0-9]*)\\[dtc]?frac(?:\{([+-]?[0-9]+)\}|([0-9]))(?:\{([+-]?[0-9]+)\}|([0-9]))")
_SLASH = re.compile(r"([+-]?)(?:([0-9]+)\s+)?\(?([+-]?[0-9]+)\)?/\(?([0-9]+)\)?")
_BASE = r"(?:base\s*-?\s*)?([0-9]+|[a-z]+)"
_NUMERAL = re.compile(
    rf"\(?\s*(-?[0-9][0-9A-Za-z]*)\s*\)?\s*(?:_\s*(?:\{{\s*\(?\s*{_BASE}\s*\)?\s*\}}|([0-9]))"
    rf"|[\s(]*(?:in\s+)?base\s*-?\s*([0-9]+|[a-z]+)\s*\)?)"
)
BASES = {
    name: base
    for base, name in enumerate(
        ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"], start=2
    )
} | {"sixteen": 16}


@dataclass(frozen=True)
class Value:
    """A number as it was written: 20 % has the number 20 and the sign."""

    number: Fraction
    percent: bool

    @property
    def exact(self) -> Fraction:
        """What it stands for: 1/5 for 20 %."""
        return self.number / 100 if self.percent else self.number


def value_of(text: str) -> Value | None:
    """The number that the text is; None where it is not one. Units and words have gone before."""
    if len(text) > _MAX_CHARS:
        return None
    text = without_thousands(text.strip())
    percent = text.endswith("%")
    if percent:
        text = text[:-1].rstrip().removesuffix("\\").rstrip()
    exact = number(text)
    return None if exact is None else Value(exact, percent)


def number(text: str) -> Fraction | None:
    """The exact value of an integer, a decimal, a fraction of integers, a mixed number or a numeral with its base."""
    if len(text) > _MAX_CHARS:
        return None
    squeezed_text = squeezed(text)
    value = _decimal(squeezed_text)
    if value is None:
        value = _fraction(text)
    return in_base(numeral_parts(text)) if value is None else value


def same_number(gold: Value, answer: Value) -> bool:
    """Whether two numbers are the same answer.

    By what they stand for; and a percent sign may be missing on either side (20 for 20 %, as the graders of Hendrycks
    and of Qwen have it), except that a proper fraction is never a percentage of its own size (0.2 is not 0.2 %).
    """
    if gold.exact == answer.exact:
        return True
    if gold.percent == answer.percent or gold.number != answer.number:
        return False
    return gold.percent or gold.number.denominator == 1 or abs(gold.number) >= 1


def squeezed(text: str) -> str:
    """Without spaces, except between digits: "2 5" is not 25."""
    text = re.sub(r"\s+", " ", text)
    return re.sub(r"(?<![0-9]) | (?![0-9])", "", text)


def without_thousands(text: str) -> str:
    """`10,080`, `10\\,080` and `10\\;080` as 10080; anything else as it stands."""
    if _GROUPED.fullmatch(text) and not _SPACED_COMMA.search(text):
        return re.sub(r"[^0-9.+-]", "", text)
    return text


def _decimal(text: str) -> Fraction | None:
    match = _DECIMAL.fullmatch(text)
    if match is None:
        return None
    exponent = int(match[2] or match[3] or 0)
    return Fraction(match[1]) * Fraction(10) ** exponent if abs(exponent) <= _MAX_EXPONENT else None


def _fraction(text: str) -> Fraction | None:
    """`3/4`, `\\frac{3}{4}`, and the mixed numbers `1 3/4` and `1\\frac{3}{4}`."""
    if match := _FRACTION.fullmatch(re.sub(r"\s+", "", text)):
        sign, whole = match[1], match[2]
        top, bottom = int(match[3] or match[4]), int(match[5] or match[6])
    elif match := _SLASH.fullmatch(re.sub(r"\s*/\s*", "/", text.strip())):
        sign, whole, top, bottom = match[1], match[2], int(match[3]), int(match[4])
    else:
        return None
    if not bottom or (whole and not 0 <= top < bottom):
        return None
    return (-1 if sign == "-" else 1) * (int(whole or 0) + Fraction(top, bottom))


def in_base(parts: tuple[str, int] | None) -> Fraction | None:
    """The value of digits in a base (see numeral_parts); None without them."""
    if parts is None:
        return None
    digits, base = parts
    try:
        return Fraction(int(digits, base))
    except ValueError:  # a digit that the base does not have
        return None


def numeral_parts(text: str) -> tuple[str, int] | None:
    """Digits and base of `101_2`, `(101)_{2}`, `101_{two}`, `101_{base 2}` or `101 in base 2`; None
    for anything else.
    """
    match = _NUMERAL.fullmatch(re.sub(r"\\(?:text|mbox|textnormal|textrm|mathrm)\s*\{([^{}]*)\}", r"\1", text).strip())
    if match is None:
        return None
    written = match[2] or match[3] or match[4]
    base = int(written) if written.isdigit() and len(written) < 4 else BASES.get(written, 0)
    return (match[1], base) if 2 <= base <= 36 else None
