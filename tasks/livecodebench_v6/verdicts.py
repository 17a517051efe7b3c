"""Turns the messages of a runner in the sandbox into verdicts, as they come.

A runner tells what the program printed or returned, never whether that is right: what is expected stays on this side,
so that a program that takes over its runner still cannot pass a test that it does not solve.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tasks.livecodebench_v6.comparison import (
    AmbiguousError,
    IncomparableError,
    parse_expected,
    parse_value,
    same_output,
    same_value,
)

DIED, WRONG, TIMED_OUT, CRASHED = -1, -2, -3, -4  # the official codes; True is a pass, False a wrong return value
_ERRORS = (WRONG, TIMED_OUT, CRASHED)
_MAX_MESSAGE_BYTES = 17 << 20  # a little more than the runners send

Result = bool | int


class Verdicts:
    """The results of one program on one problem's tests, up to the first failure."""

    def __init__(self, outputs: Sequence[str], functional: bool, lenient: bool = False) -> None:
        self.ready = False  # whether the runner had started: else nothing is known about the program
        self._outputs, self._functional, self._lenient = outputs, functional, lenient
        self._results: list[Result] = []
        self._finished = False
        self._pending = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> bool:
        """Takes output of the runner; returns whether there is more to come that matters."""
        self._pending += data
        while (end := self._pending.find(b"\n", self._searched)) >= 0:
            line = bytes(self._pending[:end])
            del self._pending[: end + 1]
            self._searched = 0
            try:
                self._take(json.loads(line))
            except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
                return False  # no message of the runner: the program has taken its place, and fails
            if self._finished:
                return False
        self._searched = len(self._pending)
        return self._searched <= _MAX_MESSAGE_BYTES

    def results(self) -> list[Result]:
        """What the official runner would report. Without an end, or a failure before it, every test has failed."""
        return list(self._results) if self._finished else [DIED] * len(self._outputs)

    def _take(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self.ready = True
        elif "failed" in message:
            self._finish([CRASHED])
        elif "end" in message:
            self._finished = len(self._results) == len(self._outputs)
        elif message.get("error") in _ERRORS:
            self._finish([*self._results, message["error"]])
        else:
            self._judge(message, self._outputs[len(self._results)])

    def _judge(self, message: dict[str, Any], expected: str) -> None:
        if self._functional:
            self._judge_value(parse_value(message["value"]), expected)
            return
        try:
            self._record(same_output(message["output"], expected), WRONG)
        except IncomparableError:  # outside of what upstream guards: all results are lost
            self._finish([CRASHED])

    def _judge_value(self, value: Any, expected: str) -> None:
        try:
            wanted = parse_expected(expected)
        except ValueError:
            self._finish([CRASHED])
            return
        try:
            self._record(same_value(value, wanted, self._lenient), False)
        except AmbiguousError as error:  # upstream notes the result before it fails on it
            self._finish([*self._results, error.first, CRASHED])
        except IncomparableError:
            self._finish([*self._results, CRASHED])

    def _record(self, passed: bool, failure: Result) -> None:
        if passed:
            self._results.append(True)
        else:
            self._finish([*self._results, failure])

    def _finish(self, results: list[Result]) -> None:
        self._results, self._finished = results, True
