"""tasks.livecodebench_v6.comparison and verdicts: what counts as equal, and messages from a runner that is not one."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from fractions import Fraction

import numpy
import pytest

import tasks.livecodebench_v6.verdicts as verdicts_module
from tasks.livecodebench_v6.comparison import (
    AmbiguousError,
    IncomparableError,
    parse_expected,
    parse_value,
    same_output,
    same_value,
)
from tasks.livecodebench_v6.inside import portable
from tasks.livecodebench_v6.judging import DIED, SHORT_BYTES, Judge, Judgement, Question, longest_bytes
from tasks.livecodebench_v6.verdicts import Allowed, Verdicts


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


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("0.3333333", "0.33333333333333", True),  # 3e-8 off
        ("0.3333", "0.33333333333333", False),  # 3e-5
        ("1000000.4", "1000000.0", True),  # relative: 4e-7
        ("1000002.0", "1000000.0", False),  # 2e-6
        ("0.0000005", "0.0", True),  # absolute: 5e-7
        ("6.0000001", "6", True),
        ("2", "2.0000001", True),
        ("1000000", "1000001", False),  # integers are exact, however close
        ("1000000007", "1000000008", False),
        ("50000000000000001", "50000000000000000", False),
        ("1e-9 2", "0.0 2", True),
        ("1 2.5", "1 2.5 3", False),
        ("Case 1: 0.5000001", "Case 1: 0.5", True),
        ("Case  1: 0.5000001", "Case 1: 0.5", False),  # blanks count beside words
        ("a  b", "a b", False),
        ("Yes", "yes", False),
        ("inf", "1e400", False),  # not finite
        ("nan", "0.5", False),
        ("0.50000001\n1", "0.5\n1", True),
        ("0.5\n1", "0.5", False),
    ],
)
def test_clean_outputs(output: str, expected: str, same: bool):
    """What a checker forgives, by hand; the official comparison forgives none of it."""
    assert same_output(output, expected, lenient=True) is same
    assert not same_output(output, expected)


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        (0.1 + 0.2, 0.3, True),
        ([0.1 + 0.2, [1]], [0.3, [1]], True),
        ((1, 0.3333333), [1, 1 / 3], True),
        ({"a": 0.1 + 0.2}, {"a": 0.3}, True),
        (numpy.array([0.1 + 0.2]), [0.3], True),
        (2, 2.0000001, True),
        (Fraction(1, 3), 0.3333333, True),
        (0.333, 1 / 3, False),
        (10**9 + 7, 10**9 + 8, False),
        (10**400, 1.5, False),
        ([0.3], [0.3, 0.3], False),
        ({"a": 0.3}, {"b": 0.3}, False),
        ("0.3000000001", "0.3", False),  # texts are texts
        (float("nan"), 0.5, False),
        (None, 0.0, False),
        (True, 0.9999999, False),
    ],
    ids=repr,
)
def test_clean_values(value, expected, same: bool):
    assert same_value(value, expected, lenient=True) is same


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
    json.dumps({"array": ["<U1", ["x" * 100_000] + [""] * 1000]}),  # 400 MB as an array
    json.dumps({"array": ["<i8", [[1]] * 1000]}),
]


@pytest.mark.parametrize("value", FORGED)
def test_forged_values_fail(value: str):
    verdicts = Verdicts(["1"], functional=True)
    feed(verdicts, lines({"value": value}, {"end": True}))
    assert verdicts.results() in ([-1], [False], [-4], [True, -4])


def feed(verdicts: Verdicts, data: bytes) -> None:
    """As the supervisor does: whenever a judge works, until it has an answer."""
    answer = verdicts.feed(data)
    while not isinstance(answer, bool):
        assert select.select([answer], [], [], 30)[0]
        answer = verdicts.feed(b"")


COLLISIONS = json.dumps({"dict": [[n * ((1 << 61) - 1), 0] for n in range(1, 30_000)]})


def test_what_takes_long_is_judged_elsewhere_and_for_so_long_only():
    """A dict of 30,000 keys of one hash takes some seconds to rebuild: not here, and not longer than allowed."""
    verdicts = Verdicts(["1"], functional=True, allowed=Allowed(judging_s=0.5))
    began = time.monotonic()
    judge = verdicts.feed(lines({"ready": True}, {"value": COLLISIONS}))
    assert time.monotonic() - began < 0.4 and isinstance(judge, Judge)  # 700 kB are handed over, no more
    feed(verdicts, b"")
    assert time.monotonic() - began < 10
    assert verdicts.results() == [-3]


def test_long_right_answers_pass_in_a_judge():
    numbers = list(range(100_000))
    for functional, given in ((True, {"value": portable.dumps(tuple(numbers))}), (False, {"output": "1 " * 50_000})):
        expected = json.dumps(numbers) if functional else "1 " * 50_000
        verdicts = Verdicts([expected, expected], functional)
        feed(verdicts, lines({"ready": True}, given, given, {"end": True}))
        assert verdicts.results() == [True, True]


def test_a_message_is_no_longer_than_a_right_answer_could_be():
    """32 times the expected text and a MiB: a list of ones as fractions is 18 times as long as in JSON."""
    ones = [1] * 100_000
    as_fractions = {"value": portable.dumps([Fraction(1)] * 100_000)}
    assert len(lines(as_fractions)) / len(json.dumps(ones)) == pytest.approx(12, abs=1)
    verdicts = Verdicts([json.dumps(ones)], functional=True)
    feed(verdicts, lines(as_fractions, {"end": True}))
    assert verdicts.results() == [True]
    for functional, failure in ((True, False), (False, -2)):
        verdicts = Verdicts(["1", "1"], functional)
        assert verdicts.feed(b"x" * (longest_bytes("1") + 1)) is False  # nor is its end waited for
        assert verdicts.results() == [failure]


def test_a_judge_that_runs_out_of_memory_is_a_failed_test_and_the_next_one_starts_afresh():
    question = Question(b'{"value": "' + b"[" * 5000 + b'"}', "1", True, False)
    assert not question.short
    judge = Judge()
    os.kill(judge._process.pid, signal.SIGKILL)  # as the kernel does
    judge.ask(question, 5.0)
    assert judge.answer() == Judgement((-4,))
    assert not judge.alive
    judge.end()
    verdicts = Verdicts(["1"], functional=True)
    feed(verdicts, lines({"value": json.dumps([0] * SHORT_BYTES)}))
    assert verdicts.results() == [False]


def test_an_abandoned_judge_is_ended():
    verdicts = Verdicts(["1"], functional=True)
    judge = verdicts.feed(lines({"value": COLLISIONS}))
    verdicts.close()
    assert not judge.alive


@pytest.mark.parametrize("message", [{"ready": True}, {"loaded": True}])
def test_a_program_cannot_begin_twice_to_gain_time(message: dict):
    verdicts = Verdicts(["1"], functional=False)
    assert verdicts.feed(lines(message)) is True
    assert verdicts.feed(lines(message)) is False
    assert verdicts.results() == [DIED]


def test_time_between_messages_is_limited(monkeypatch):
    now = 100.0
    monkeypatch.setattr(verdicts_module.time, "monotonic", lambda: now)
    for late, passed in ((False, True), (True, False)):
        verdicts = Verdicts(["1", "1"], functional=False, allowed=Allowed(load_s=9, test_s=6))
        moments = [(50.0, {"ready": True}), (8.9, {"loaded": True}), (5.9, {"output": "1"}), (5.9, {"output": "1"})]
        for after, message in moments:
            now += after + (0.2 if late and message == moments[-1][1] else 0)
            if not verdicts.feed(b"") or not verdicts.feed(lines(message)):
                break
        verdicts.feed(lines({"end": True}))
        assert verdicts.results() == ([True, True] if passed else [DIED, DIED])
