"""tasks.livecodebench_v6.comparison and verdicts: what counts as equal, and messages from a runner that is not one."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy
import pytest

from tasks.livecodebench_v6.comparison import (
    AmbiguousError,
    IncomparableError,
    parse_expected,
    parse_value,
    same_output,
    same_value,
)
from tasks.livecodebench_v6.inside import portable
from tasks.livecodebench_v6.verdicts import Verdicts


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("6", "6\n", True),
        (" 6 \n\n", "6", True),
        ("6.0", "6", True),
        ("6e0 7", "6 7.00", True),
        ("6.000000001", "6", False),
        ("50000000000000001", "50000000000000000", False),
        ("1  2", "1 2", True),  # equal numbers
        ("a  b", "a b", False),  # but texts as they stand
        ("a 1.0", "a 1", False),
        ("Yes", "yes", False),
        ("1\n\n2", "1\n2", False),
        ("1\r\n2\r\n", "1\n2", True),
        ("", "", True),
        ("nan", "nan", True),
        ("NaN", "nan", False),
        ("inf", "Infinity", True),
    ],
)
def test_outputs(output: str, expected: str, same: bool):
    assert same_output(output, expected) is same


def test_a_signalling_nan_breaks_the_comparison():
    with pytest.raises(IncomparableError):
        same_output("sNaN", "1")


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(10**30), 10**5000, 0.1, "text", "\ud800", [1, [2.5, None]], {}, {"a": {"b": [1]}}, {1: 2, "1": 3},
     (1, (2,)), [(1,)], Fraction(1, 3), float("inf")],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_survive_the_way_out(value):
    restored = parse_value(portable.dumps(value))
    assert restored == value and type(restored) is type(value)


def test_what_json_cannot_express_equals_nothing():
    for value in ({1, 2}, object(), b"x", range(3), iter([1]), lambda: 1):
        assert parse_value(portable.dumps(value)) not in ([], [0, 1, 2], "x", 1, None)
    assert parse_value(portable.dumps(complex(3, 0))) == 3
    assert parse_value(portable.dumps(numpy.int64(3))) == 3
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert parse_value(portable.dumps(deep)) != deep


def test_tuples_and_arrays():
    assert same_value((1, 2), [1, 2])
    assert not same_value([(1, 2)], [[1, 2]])
    assert same_value([(1, 2)], [[1, 2]], lenient=True)
    array = parse_value(portable.dumps(numpy.array([1, 2])))
    assert isinstance(array, numpy.ndarray)
    with pytest.raises(AmbiguousError):
        same_value(array, [1, 2])
    assert same_value(array, [1, 2], lenient=True)
    assert same_value(numpy.array([3]), 3) and same_value(numpy.array([3]), 3, lenient=True)
    with pytest.raises(IncomparableError):
        same_value([numpy.array([1, 2])], [[1, 2]])


def test_expected_values():
    assert parse_expected("[1, 2.0, true, null]") == [1, 2.0, True, None]
    assert parse_expected("1" + "0" * 5000) == 10**5000
    with pytest.raises(ValueError):
        parse_expected("1" * 60_000)


def lines(*messages: dict) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


def test_messages_may_come_in_pieces():
    data = lines({"ready": True}, {"output": "1"}, {"output": "2"}, {"end": True})
    verdicts = Verdicts(["1", "2"], functional=False)
    assert [verdicts.feed(data[n : n + 1]) for n in range(len(data))] == [True] * (len(data) - 1) + [False]
    assert verdicts.ready and verdicts.results() == [True, True]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        lines({"output": "1"}),
        lines({"end": True}),
        lines({"output": "1"}, {"end": True}),
        lines({"output": "1"}, {"output": "2"}, {"output": "3"}),
        lines({"output": 1}),
        lines({"error": 1}),
        lines({"error": True}),
        b"[]\n",
        b"1\n",
        b"\xff\n",
        b"[" * 10_000 + b"\n",
    ],
)
def test_without_a_proper_end_all_tests_have_failed(data: bytes):
    verdicts = Verdicts(["1", "2"], functional=False)
    verdicts.feed(data)
    assert verdicts.results() == [-1, -1]


FORGED = [
    '{"ratio": ["1", "0"]}',
    '{"array": ["<U99999999999", [1]]}',
    '{"array": 5}',
    '{"array": ["|b1", [[1], [1, 2]]]}',
    '{"array": ["<i8", 1e999]}',
    '{"dict": [[[], 1]]}',
    '{"int": "x"}',
    "{}",
]


@pytest.mark.parametrize("value", FORGED)
def test_forged_values_fail(value: str):
    verdicts = Verdicts(["1"], functional=True)
    verdicts.feed(lines({"value": value}, {"end": True}))
    assert verdicts.results() in ([-1], [False], [-4])
