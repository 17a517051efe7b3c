"""Turns the messages of a runner in the sandbox into verdicts, as they come.

A runner tells what the program printed or returned, never whether that is right: what is expected stays on this side,
so that a program that takes over its runner still cannot pass a test that it does not solve.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.livecodebench_v6.judging import (
    CRASHED,
    DIED,
    IDLE,
    NOTHING,
    SHORT_BYTES,
    TIMED_OUT,
    WRONG,
    Judge,
    Judgement,
    Question,
    Result,
    judge,
    longest_bytes,
)

_ERRORS = (WRONG, TIMED_OUT, CRASHED)


@dataclass(frozen=True)
class Allowed:
    """Seconds from one message to the next. They hold whatever a program does to its runner's own alarm."""

    load_s: float = math.inf  # to the first test: packages are imported, the program is compiled
    test_s: float = math.inf
    judging_s: float = 60.0  # for comparing what a test gave


class Verdicts:
    """The results of one program on one problem's tests, up to the first failure."""

    def __init__(
        self, outputs: Sequence[str], functional: bool, lenient: bool = False, allowed: Allowed | None = None
    ) -> None:
        self.ready = False  # whether the runner had started: else nothing is known about the program
        self._outputs, self._functional, self._lenient = outputs, functional, lenient
        self._allowed = allowed or Allowed()
        self._loaded = False
        self._deadline = math.inf
        self._results: list[Result] = []
        self._finished = False
        self._received = bytearray()
        self._searched = 0
        self._judge: Judge | None = None  # while it works

    def feed(self, data: bytes) -> bool | Judge:
        """Takes output of the runner, or nothing; returns whether there is more to come that matters, or a judge.

        A judge has to have answered before more is fed.
        """
        try:
            if self._judge is not None:
                self._hear(self._judge)
            elif time.monotonic() >= self._deadline:
                self._finish([])  # as upstream's limit on the whole program: all tests have failed
            self._received += data
            return False if self._finished else self._go_on()
        except MemoryError:  # a machine at its limits; what takes much memory is not compared here
            self._fail(CRASHED)
            return False

    def results(self) -> list[Result]:
        """What the official runner would report. Without an end, or a failure before it, every test has failed."""
        return list(self._results) if self._finished and self._results else [DIED] * len(self._outputs)

    def close(self) -> None:
        """Ends a judge whose answer nobody waits for any more."""
        if self._judge is not None:
            self._judge.end()
            self._judge = None

    def _go_on(self) -> bool | Judge:
        """Takes the messages that are complete."""
        while (end := self._received.find(b"\n", self._searched)) >= 0:
            line = bytes(self._received[:end])
            del self._received[: end + 1]
            self._searched = 0
            self._take(line)
            if self._judge is not None:
                return self._judge
            if self._finished:
                return False
        self._searched = len(self._received)
        if self._searched > self._longest():
            self._take(bytes(self._received))
        return not self._finished

    @property
    def _expected(self) -> str | None:
        """What the next test has to give; None after the last one."""
        return self._outputs[len(self._results)] if len(self._results) < len(self._outputs) else None

    def _longest(self) -> int:
        return SHORT_BYTES if self._expected is None else longest_bytes(self._expected)

    def _take(self, line: bytes) -> None:
        if len(line) > self._longest():
            self._fail(False if self._functional else WRONG)
        elif len(line) > SHORT_BYTES or not self._is_about_the_run(line):
            self._ask(line)

    def _is_about_the_run(self, line: bytes) -> bool:
        """Whether a short message is about the program as a whole or a test that failed; then it is taken."""
        try:
            return self._heed(json.loads(line))
        except (ValueError, TypeError, RecursionError):
            self._note(NOTHING)
            return True

    def _heed(self, message: Any) -> bool:
        if not isinstance(message, dict):
            raise TypeError("a message is an object")
        if "ready" in message:
            self._once(not self.ready, self._allowed.load_s)
            self.ready = True
        elif "loaded" in message:
            self._once(not self._loaded and not self._results, self._allowed.test_s)
            self._loaded = True
        elif "failed" in message:
            self._finish([CRASHED])
        elif "end" in message:
            self._finish(self._results if self._expected is None else [])
        elif message.get("error") in _ERRORS:
            self._fail(message["error"])
        else:
            return False
        return True

    def _once(self, first: bool, allowed_s: float) -> None:
        if first:
            self._deadline = time.monotonic() + allowed_s
        else:
            self._note(NOTHING)

    def _ask(self, line: bytes) -> None:
        """Judges what a test gave, here or in a judge."""
        if self._expected is None:
            self._note(NOTHING)
            return
        question = Question(line, self._expected, self._functional, self._lenient)
        if question.short:
            self._note(judge(question))
        else:
            self._judge = IDLE.take()
            self._judge.ask(question, self._allowed.judging_s)

    def _hear(self, judge: Judge) -> None:
        """Takes a judge's answer."""
        self._judge = None
        self._note(judge.answer())
        if judge.alive:
            IDLE.give(judge)
        else:
            judge.end()

    def _note(self, judgement: Judgement) -> None:
        before = [] if judgement.alone else self._results
        if judgement.failed:
            self._finish([*before, *judgement.results])
        else:
            self._results = [*before, *judgement.results]
            self._deadline = time.monotonic() + self._allowed.test_s

    def _fail(self, failure: Result) -> None:
        """The next test has failed. After the last one it is the run that does not end as it should."""
        self._finish([*self._results, failure] if self._expected is not None else [])

    def _finish(self, results: list[Result]) -> None:
        self._results, self._finished = results, True
