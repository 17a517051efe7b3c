"""Whether an output is the expected one, by the rules of the official runner or kinder. Never runs in the sandbox.

The kinder rules are those of a checker: numbers may differ as floats differ that were computed in another order.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

import numpy

_LONG_DIGITS = 4000  # int() refuses more than 4300 digits, the official runner 50,000
_MAX_DIGITS = 50_000
_TOLERANCE = 1e-6  # relative or absolute, as the checkers of contests have it
_MAX_ARRAY_BYTES = 64 << 20  # a text in an array takes as much as the longest; upstream's largest answers are some MB
_BLANKS = re.compile(r"(\s+)")
_ARRAY_TYPE = re.compile(r"[<>|=]?(?:[biuf][0-9]{1,2}|U[0-9]{1,9})")


class IncomparableError(ValueError):
    """The comparison itself fails."""


class AmbiguousError(ValueError):
    """The comparison gave an array of several truth values."""

    def __init__(self, first: bool) -> None:
        super().__init__("the truth of an array is ambiguous")
        self.first = first


def same_output(output: str, expected: str, lenient: bool = False) -> bool:
    """Line by line, without surrounding blanks: equal as texts, or else all words equal as exact decimal numbers.

    Args:
        lenient: a number with a decimal point or an exponent, on either side, need only be close; other words may stand
            beside numbers.
    """
    output, expected = output.strip(), expected.strip()
    if output.count("\n") != expected.count("\n"):  # before millions of lines are made
        return False
    return all(
        line == wanted or _same_numbers(line, wanted) or (lenient and _close_words(line, wanted))
        for line, wanted in zip(_lines(output), _lines(expected), strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n")]


def _same_numbers(line: str, wanted: str) -> bool:
    wanted_numbers = _decimals(wanted)
    if wanted_numbers is None:
        return False
    numbers = _decimals(line, len(wanted_numbers))
    if numbers is None:
        return False
    try:
        return numbers == wanted_numbers
    except InvalidOperation as error:  # a signalling NaN
        raise IncomparableError(str(error)) from error


def _decimals(line: str, most: int = -1) -> list[Decimal] | None:
    """The numbers of a line, if its words are numbers; more than so many of them are not told apart."""
    try:
        return [Decimal(word) for word in line.split(maxsplit=most)]
    except (InvalidOperation, ValueError):
        return None


def _close_words(line: str, wanted: str) -> bool:
    """Whether the words are equal or close numbers. Between words that are no numbers the blanks count as well."""
    words, wanted_words = line.split(), wanted.split()
    if len(words) != len(wanted_words):
        return False
    if all(_close_texts(*pair) for pair in zip(words, wanted_words, strict=True)):
        return True
    parts, wanted_parts = _BLANKS.split(line), _BLANKS.split(wanted)
    return all(part == other or _close_texts(part, other) for part, other in zip(parts, wanted_parts, strict=True))


def _close_texts(word: str, wanted: str) -> bool:
    """Whether both are numbers, and close, or equal if both are integers: 1000000 is not 1000001, however close."""
    try:
        if _is_integer(word) and _is_integer(wanted):
            return Decimal(word) == Decimal(wanted)
        return close(float(word), float(wanted))
    except (ValueError, InvalidOperation):
        return False


def _is_integer(word: str) -> bool:
    return word.lstrip("+-").isdecimal()


def close(value: Any, wanted: Any) -> bool:
    """Whether two finite numbers differ by rounding only; two integers, by nothing."""
    if isinstance(value, int) and isinstance(wanted, int):
        return value == wanted
    try:
        number, other = float(value), float(wanted)
    except OverflowError:
        return False
    return math.isfinite(number) and math.isclose(number, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)


def same_value(value: Any, expected: Any, lenient: bool = False) -> bool:
    """Plain ==, but a tuple counts as the list of its elements: the outermost one only, unless asked otherwise.

    Args:
        lenient: tuples and arrays count as lists wherever they are, and floats need only be close.
    """
    if isinstance(value, tuple):
        value = list(value)
    try:
        if lenient and _alike(_as_lists(value), expected):
            return True
        same = value == expected
        if isinstance(same, numpy.ndarray) and same.size > 1:
            raise AmbiguousError(bool(same.flat[0]))
        return bool(same)
    except AmbiguousError:
        raise
    except (ValueError, RecursionError) as error:
        raise IncomparableError(str(error)) from error


def _as_lists(value: Any) -> Any:
    if isinstance(value, numpy.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_as_lists(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _as_lists(entry) for key, entry in value.items()}
    return value


def _alike(value: Any, expected: Any) -> bool:
    """Equal, but for the rounding of floats."""
    if value == expected:
        return True
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(_alike(*pair) for pair in zip(value, expected, strict=True))
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(_alike(value[key], expected[key]) for key in expected)
    return _is_number(value) and _is_number(expected) and close(value, expected)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Fraction) and not isinstance(value, bool)


def parse_expected(text: str) -> Any:
    """The expected value of a functional test."""
    return json.loads(text, parse_int=_integer)


def _integer(digits: str) -> int:
    if len(digits) <= _LONG_DIGITS:
        return int(digits)
    if len(digits) > _MAX_DIGITS:
        raise ValueError("an integer with too many digits")
    return int(Decimal(digits))


def parse_value(text: str) -> Any:
    """What a function returned, from the form in which it left the sandbox (inside/portable.py)."""
    return json.loads(text, object_hook=_restore)


def _restore(tagged: dict[str, Any]) -> Any:
    (kind, content), *_ = tagged.items()
    if kind == "tuple":
        return tuple(content)
    if kind == "dict":
        return dict(content)
    if kind == "int":
        return int(content, 16)
    if kind == "ratio":
        return Fraction(*(int(part, 16) for part in content))
    if kind == "array":
        return _array(*content)
    return object()  # equals nothing


def _array(dtype: str, content: Any) -> Any:
    """The array again. Its type is checked, since a program may have made it up."""
    if not _ARRAY_TYPE.fullmatch(dtype):
        raise ValueError(f"no type of an array: {dtype[:20]}")
    if "U" in dtype:
        texts = list(_leaves(content))
        if 4 * len(texts) * max(map(len, texts), default=0) > _MAX_ARRAY_BYTES:
            raise ValueError("an array of texts that is too large")
    return numpy.array(content, dtype=str if "U" in dtype else dtype)


def _leaves(content: Any) -> Iterator[str]:
    if isinstance(content, list):
        for entry in content:
            yield from _leaves(entry)
    else:
        yield str(content)
