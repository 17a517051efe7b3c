"""What a message of a runner is worth, worked out here if it is short, and else in a process that has limits.

A program decides what its runner says, and rebuilding and comparing a value may take quadratic time (a dict whose keys
collide) or gigabytes (an array that repeats its longest text). Of a short message that is milliseconds at most. What is
much longer than any right answer could be is wrong without a look. The rest goes to a judge: a process of ours, with a
limit on its memory and, for each message, on its time; the kernel enforces both, and nothing waits for it meanwhile.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.sandbox.confinement import memory_file
from tasks.livecodebench_v6.comparison import (
    AmbiguousError,
    IncomparableError,
    parse_expected,
    parse_value,
    same_output,
    same_value,
)

DIED, WRONG, TIMED_OUT, CRASHED = -1, -2, -3, -4  # the official codes; True is a pass, False a wrong return value
Result = bool | int

SHORT_BYTES = 4096  # of the message and of what is expected: compared here, whatever they hold
MEMORY_BYTES = 1 << 30  # address space of a judge; the longest messages and answers need a third of it
MAX_MESSAGE_BYTES = 17 << 20  # a little more than the runners send
# A right answer is as long as the expected one but for blanks, escapes and tags: {\"ratio\": [\"0x1\", \"0x1\"]} is 1.
_LONGER, _LONGER_BYTES = 32, 1 << 20
_ROOT = Path(__file__).parents[2]
_BROKEN, _OUT_OF_MEMORY = 1, 3  # exit codes of a judge: Python's own for an error, and one of ours


@dataclass(frozen=True)
class Question:
    """A message, which may be anything, and what decides about it."""

    message: bytes  # a line of a runner, without its end
    expected: str
    functional: bool
    lenient: bool

    @property
    def short(self) -> bool:
        """Whether judging it costs next to nothing."""
        return len(self.message) <= SHORT_BYTES and len(self.expected) <= SHORT_BYTES


@dataclass(frozen=True)
class Judgement:
    """What becomes of the results."""

    results: tuple[Result, ...]  # more of them; a failure is the last
    alone: bool = False  # instead of those so far

    @property
    def failed(self) -> bool:
        return self.results != (True,)


NOTHING = Judgement((), alone=True)  # no message of a runner: the program has taken its place


def longest_bytes(expected: str) -> int:
    """The length beyond which a message is no right answer to a test."""
    return min(_LONGER * len(expected) + _LONGER_BYTES, MAX_MESSAGE_BYTES)


def judge(question: Question) -> Judgement:
    """Compares. Whatever a message makes it stumble over, the message is none of a runner; a want
    of memory is raised.
    """
    try:
        message = json.loads(question.message)
        if question.functional:
            return _judge_value(parse_value(message["value"]), question)
        return _judge_output(message["output"], question)
    except MemoryError:
        raise
    except Exception:
        return NOTHING


def _judge_output(output: str, question: Question) -> Judgement:
    try:
        return Judgement((True if same_output(output, question.expected, question.lenient) else WRONG,))
    except IncomparableError:  # outside of what upstream guards: all results are lost
        return Judgement((CRASHED,), alone=True)


def _judge_value(value: Any, question: Question) -> Judgement:
    try:
        wanted = parse_expected(question.expected)
    except ValueError:
        return Judgement((CRASHED,), alone=True)
    try:
        return Judgement((same_value(value, wanted, question.lenient),))
    except AmbiguousError as error:  # upstream notes the result before it fails on it
        return Judgement((error.first, CRASHED))
    except IncomparableError:
        return Judgement((CRASHED,))


class Judge:
    """A process that judges one question after the other. Its descriptor is readable when it has an answer, or died."""

    def __init__(self) -> None:
        code = (
            f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from tasks.livecodebench_v6 import judging; "
            "judging.serve()"
        )
        command = [sys.executable, "-P", "-c", code]
        self.command = shlex.join(command)
        self._questions, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # threads take address space
                start_new_session=True,  # an interrupt from the keyboard is not for it; it ends with its input
            )

    def fileno(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def ask(self, question: Question, timeout_s: float) -> None:
        """Hands a question over, as a file, which waits for nobody. The answer has to be taken before the next one."""
        details = {
            "expected": question.expected,
            "functional": question.functional,
            "lenient": question.lenient,
            "timeout_s": timeout_s,
        }
        with (
            memory_file(json.dumps(details).encode() + b"\n" + question.message) as file,
            suppress(OSError),  # it is dead, and its output at an end
        ):
            socket.send_fds(self._questions, [b"?"], [file])

    def answer(self) -> Judgement:
        """Its answer; without one it has died of the question, which is then answered with that: the judge is spent."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line.endswith(b"\n"):
            results, alone = json.loads(line)
            return Judgement(tuple(results), alone)
        code = self._process.wait()
        if code == _BROKEN:
            raise RuntimeError(f"the process that judges answers does not start; run `{self.command}` to see why")
        return Judgement((TIMED_OUT if code == -signal.SIGALRM else CRASHED,))

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._questions.close()


class _Idle:
    """Judges that wait for work: starting one takes longer than most programs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._judges: list[Judge] = []

    def take(self) -> Judge:
        """One that lives."""
        while True:
            with self._lock:
                found = self._judges.pop() if self._judges else None
            if found is None:
                return Judge()
            if found.alive:
                return found
            found.end()

    def give(self, judge: Judge) -> None:
        with self._lock:
            self._judges.append(judge)


IDLE = _Idle()
os.register_at_fork(after_in_child=IDLE.__init__)  # type: ignore[misc]  # the pipes are the parent's to talk into


def serve() -> None:
    """In a judge: answers until the input ends. The end of the time is the kernel's to enforce, by an alarm."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    questions = socket.socket(fileno=sys.stdin.fileno())
    try:
        while files := socket.recv_fds(questions, 1, 1)[1]:
            with open(files[0], "rb") as file:
                given, message = json.loads(file.readline()), file.read()
            signal.setitimer(signal.ITIMER_REAL, given.pop("timeout_s"))
            judgement = judge(Question(message, **given))
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(json.dumps([judgement.results, judgement.alone]), flush=True)
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)
