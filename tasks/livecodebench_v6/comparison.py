"""Whether an output is the expected one, by the rules of the official runner. Runs on the host, never in the sandbox."""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

import numpy

_LONG_DIGITS = 4000  # int() refuses more than 4300 digits, the official runner 50,000
_MAX_DIGITS = 50_000
_ARRAY_TYPE = re.compile(r"[<>|=]?(?:[biuf][0-9]{1,2}|U[0-9]{1,9})")


class IncomparableError(ValueError):
    """The comparison itself fails."""


class AmbiguousError(ValueError):
    """The comparison gave an array of several truth values."""

    def __init__(self, first: bool) -> None:
        super().__init__("the truth of an array is ambiguous")
        self.first = first


def same_output(output: str, expected: str) -> bool:
    """Line by line, without surrounding blanks: equal as texts, or else all words equal as exact decimal numbers."""
    lines, expected_lines = _lines(output), _lines(expected)
    return len(lines) == len(expected_lines) and all(
        line == wanted or _same_numbers(line, wanted) for line, wanted in zip(lines, expected_lines, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_numbers(line: str, wanted: str) -> bool:
    numbers, wanted_numbers = _decimals(line), _decimals(wanted)
    if numbers is None or wanted_numbers is None:
        return False
    try:
        return numbers == wanted_numbers
    except InvalidOperation as error:  # a signalling NaN
        raise IncomparableError(str(error)) from error


def _decimals(line: str) -> list[Decimal] | None:
    try:
        return [Decimal(word) for word in line.split()]
    except (InvalidOperation, ValueError):
        return None


def same_value(value: Any, expected: Any, lenient: bool = False) -> bool:
    """Plain ==, but a tuple counts as the list of its elements: the outermost one only, unless asked otherwise.

    Args:
        lenient: tuples and arrays count as lists wherever they are.
    """
    if isinstance(value, tuple):
        value = list(value)
    try:
        if lenient and _as_lists(value) == expected:
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
    return numpy.array(content, dtype=str if "U" in dtype else dtype)
