"""The form in which boxed numbers are counted: typography and wrappers removed, and the exact value where there is one.

This belongs to the protocol of the generated arithmetic, whose published tables it made: it stays as it is, unless that
task's version is raised. Benchmarks are graded by tasks.math_comparison.
"""

import functools
import re
from fractions import Fraction

from tasks.math_numbers import BASES, in_base

_MAX_NUMBER_CHARS = 400  # longer digit strings are compared as text: nobody's answer, and quadratic to parse
_MAX_EXPONENT = 400  # of a power of ten in scientific notation; longer numbers are left as they stand
MAX_ANSWER_CHARS = 2_000  # longer answers (a model in a loop) are compared as they stand

_TEXT = r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mathsf|mbox|operatorname)\s*\{([^{}]*)\}"
_POWER = r"(?:\s*\^\s*(?:\{[0-9]\}|[0-9]))?"
_NO_UNIT = r"(?!\\[a-z]+\s*\{\s*(?:[eijkxyz]|(?:hundred|thousand|[mb]illion|dozen)s?)\s*\})"  # 4\mathrm{i} is not 4
_UNIT_WRAPPER = re.compile(r"(?<=[0-9.}%])\s*(?:\\[,;:! ])*\s*" + _NO_UNIT + _TEXT + _POWER + r"\s*$")
_DEGREES = re.compile(r"(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree|\\circ|°)")
_TYPOGRAPHY = re.compile(r"\\(?:left|right|displaystyle|textstyle|bf|rm|it|bigl?|bigr?|Bigl?|Bigr?)(?![A-Za-z])")
_PERCENT_WORD = re.compile(r"(?<=[0-9])\s*(?:\\text\s*\{\s*percent\s*\}|percent\b)")
_ABOUT = re.compile(r"^\s*(?:\\approx(?![A-Za-z])|≈)")  # the value is judged, exactly, not the modesty
_MATH_MODE = re.compile(r"^(?:\$+|\\\(|\\\[)|(?:\$+|\\\)|\\\])$")
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:(?:,|\{,\}|\\,|\\!|,\\!|,\\,)\s?[0-9]{3})+(?:\.[0-9]*)?")
_SPACED_COMMA = re.compile(r",\s[0-9]")  # "1, 000" is a list
_SPACES = re.compile(r"(?:(?<!\\)\\[,;:! ]|\\quad|\\qquad|~|\s)+")  # not the end of `\\ `, which ends a row of a matrix
_END_SPACING = re.compile(r"(?:(?<!\\)\\[,;:! ]?|~|\s)+$")  # `25\ ` has lost its space with the box
_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_DECIMAL = re.compile(
    rf"({_NUMBER})(?:[eE]([+-]?[0-9]{{1,3}})|(?:\\times|\\cdot|\*|×)10\^\{{?([+-]?[0-9]{{1,3}})\}}?)?"
)
_FRACTION = re.compile(r"([+-]?)\\[dtc]?frac(?:\{([+-]?[0-9]+)\}|([0-9]))(?:\{([+-]?[0-9]+)\}|([0-9]))")
_SLASH = re.compile(r"([+-]?[0-9]+)/([0-9]+)")
_NUMERAL = re.compile(r"([0-9A-Za-z]+)_(?:\{([0-9]+|[a-z]+)\}|([0-9]))")
_VARIABLE = r"\\?[A-Za-z]+(?:_(?:\{\w+\}|\w))?(?:\([A-Za-z, ]+\))?"
_SIMPLE_VARIABLE = re.compile(r"(?:[A-Za-z]|\\[a-z]+)(?:_(?:\{\w+\}|\w))?(?:\([A-Za-z, ]+\))?")
_ASSIGNED = re.compile(rf"(?P<name>{_VARIABLE}(?:\s*[+*]\s*{_VARIABLE})*)\s*=(?P<value>[^=]+)")
_ASSIGNED_REVERSED = re.compile(rf"(?P<value>[^=A-Za-z\\]+)=\s*(?P<name>{_SIMPLE_VARIABLE.pattern})")
_UNIT_WORDS = re.compile(rf"({_NUMBER}%?)\s+([A-Za-z]{{2,}}(?:[\s/]+[A-Za-z]+){{0,3}})(?:\^\{{?[23]\}}?)?")
_WORD = re.compile(r"[A-Za-z]+")
# words that change what a number next to them means; with one of them a phrase is not read as its number
_NOT_FILLER = frozenset(
    _WORD.findall(
        "or and to plus minus times mod modulo over base not no than least most about approximately roughly nearly "
        "almost between half under above below infinitely percent hundred thousand million billion dozen root squared "
        "cubed power divided divides multiple if except without either neither nor factorial"
    )
)


def plain(answer: str) -> str:
    """Without math mode, wrappers, typography, units and separators of thousands."""
    text = answer.strip()
    while (bare := _MATH_MODE.sub("", text).strip()) != text:
        text = bare
    text = text.replace(r"\$", "").replace("−", "-").replace(r"\%", "%")
    text = _PERCENT_WORD.sub("%", _ABOUT.sub("", text))
    text = _DEGREES.sub("", _TYPOGRAPHY.sub("", text))
    text = _UNIT_WRAPPER.sub("", text)
    while (unwrapped := re.sub(_TEXT, r" \1 ", text)) != text:
        text = unwrapped
    text = _END_SPACING.sub("", text.strip()).rstrip(".,;").strip()
    text = re.sub(r"^\{([^{}\\]*)\}$", r"\1", text)  # not {5 \choose 2}
    if _GROUPED.fullmatch(text) and not _SPACED_COMMA.search(text):
        text = re.sub(r"[^0-9.+-]", "", text)
    text = _SPACES.sub(" ", text).strip()
    unit = _UNIT_WORDS.fullmatch(text)
    if unit and not _NOT_FILLER & set(re.split(r"[\s/]+", unit[2].lower())):
        text = unit[1]
    return re.sub(r"^([+-])\s+(?=[0-9.])", r"\1", text)


def squeezed(text: str) -> str:
    """Without spaces, except between digits: "2 5" is not 25."""
    return re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text)


def assignment(text: str) -> tuple[str | None, str]:
    """The name and the value of `x = 5`, `5 = x` or `m + n = 5`; (None, text) for anything else."""
    for pattern in (_ASSIGNED, _ASSIGNED_REVERSED):
        if match := pattern.fullmatch(text.strip()):
            return squeezed(match["name"]), match["value"].strip()
    return None, text


@functools.lru_cache(maxsize=4096)  # the same few answers come again and again
def canonical(answer: str) -> str:
    """The form in which answers are counted: the exact value of a number, otherwise the bare text."""
    if len(answer) > MAX_ANSWER_CHARS:
        return answer
    text = plain(assignment(plain(answer))[1])
    value = number(text)
    return str(value) if value is not None else squeezed(text)


def number(text: str) -> Fraction | None:
    """The exact value of an integer, a decimal, a fraction of integers or a numeral with its base; None for the rest.

    A percent sign divides by 100.
    """
    if len(text) > _MAX_NUMBER_CHARS:
        return None
    text, percent = squeezed(text), False
    if text.endswith("%"):
        text, percent = text[:-1], True
    value = _decimal(text)
    if value is None:
        value = _fraction(text)
    if value is None:
        value = in_base(_numeral_parts(text))
    return value / 100 if percent and value is not None else value


def _decimal(text: str) -> Fraction | None:
    match = _DECIMAL.fullmatch(text)
    if match is None:
        return None
    exponent = int(match[2] or match[3] or 0)
    return Fraction(match[1]) * Fraction(10) ** exponent if abs(exponent) <= _MAX_EXPONENT else None


def _fraction(text: str) -> Fraction | None:
    if match := _FRACTION.fullmatch(text):
        top, bottom = int(match[2] or match[3]), int(match[4] or match[5])
        sign = -1 if match[1] == "-" else 1
    elif match := _SLASH.fullmatch(text):
        top, bottom, sign = int(match[1]), int(match[2]), 1
    else:
        return None
    return sign * Fraction(top, bottom) if bottom else None


def _numeral_parts(text: str) -> tuple[str, int] | None:
    """Digits and base of `101_2`, `101_{2}` or `101_{two}`; None where it is a name with an index, such as `x_2`."""
    match = _NUMERAL.fullmatch(squeezed(text))
    if match is None or not match[1][0].isdigit():
        return None
    written = (match[2] or match[3]).strip()
    base = int(written) if written.isdigit() else BASES.get(written, 0)
    return (match[1], base) if 2 <= base <= 36 else None
