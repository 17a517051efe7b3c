"""Whether two answers are mathematically the same, decided by sympy in a process that can be killed.

One worker serves the whole process, from any thread, and is replaced when it dies. Answers that are known to explode
(towers of powers, factorials of factorials) are not sent to it at all.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Literal

Equivalence = Literal["equal", "different", "timeout"]

WORKER = Path(__file__).with_name("math_worker.py")
WALL_SECONDS = 60.0  # for one pair: only where the worker's own limit of CPU time does not bite, e.g. while it swaps
START_SECONDS = 120.0  # it imports sympy
_MAX_CHARS = 600  # of an answer; parsing slows down with length, and no gold is a tenth as long
_MAX_POWER_DIGITS = 5  # of a literal exponent
_MAX_FACTORIAL_DIGITS = 4
_BIG_POWER = re.compile(rf"(?:\^|\*\*)\s*(?:\{{\s*|\(\s*)*[0-9]{{{_MAX_POWER_DIGITS + 1},}}")
_POWER = r"(?:\^|\*\*)"
_POWER_SIGN = re.compile(r"(?:\^|\*\*)\s*")
_INNER_POWER = re.compile(rf"[0-9)}}]\s*{_POWER}\s*[{{(]?\s*(?:[0-9]{{2,}}|[^{{}}()]*{_POWER})")
_BIG_FACTORIAL = re.compile(
    rf"[0-9]{{{_MAX_FACTORIAL_DIGITS + 1},}}\s*!|!\s*[)}}]+\s*(?:!|{_POWER})|!\s*!|{_POWER}\s*(?:[{{(]\s*)*[0-9]+\s*!"
)
_DEEP_POWER = re.compile(rf"{_POWER}\s*[{{(][^{{}}()]*{_POWER}")
_BIG_BINOMIAL = re.compile(r"\\binom\s*\{\s*[0-9]{5,}")
_LONG_SUM = re.compile(r"\\(?:sum|prod)(?![A-Za-z]).{0,60}?\^\s*\{?[^{}]{0,20}(?:[0-9]{5,}|[0-9]\s*\^)", re.S)
_MANY_DIGITS = re.compile(r"[0-9]{300,}")


@functools.lru_cache(maxsize=4096)  # the samples of a problem give the same few answers
def equivalence(gold: str, answer: str) -> Equivalence:
    """Asks sympy whether two answers in plain LaTeX are the same. The gold comes first: the comparison is not
    symmetric.
    """
    if max(len(gold), len(answer)) > _MAX_CHARS or explodes(answer) or explodes(gold):
        return "different"
    return _WORKER.ask("strict", gold, answer)[0]


def official_verdict(gold: str, response: str) -> tuple[Equivalence, str | None]:
    """What math-verify's own defaults say of a whole response, and what they read in it."""
    return _WORKER.ask("official", gold, response)


def explodes(text: str) -> bool:
    """Whether evaluating the text would take for ever; for a bomb that slips through there is the worker's limit."""
    return _has_tower(text) or any(
        pattern.search(text) for pattern in (_BIG_POWER, _BIG_FACTORIAL, _BIG_BINOMIAL, _LONG_SUM, _MANY_DIGITS)
    )


def _has_tower(text: str) -> bool:
    """Whether an exponent holds a power with a large exponent, or a power of a power."""
    for sign in _POWER_SIGN.finditer(text):
        exponent, end = _exponent(text, sign.end())
        chained = _POWER_SIGN.match(text, end)
        if chained and not exponent.startswith("{"):  # 9^9^9 is 9^{9^9}
            exponent += text[chained.start() :]
        if _INNER_POWER.search(exponent) or _DEEP_POWER.search(exponent):
            return True
    return False


def _exponent(text: str, start: int) -> tuple[str, int]:
    """The group, or else the number or the letter, that begins at `start`, and where it ends."""
    if text[start : start + 1] not in ("{", "("):
        end = start + len(re.match(r"[0-9]+|.?", text[start:], re.S)[0])  # type: ignore[index]
        return text[start:end], end
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] in "{(") - (text[position] in "})")
        if depth == 0:
            return text[start : position + 1], position + 1
    return text[start:], len(text)


class _Worker:
    """A long-lived process that is started at the first question and again after its death."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # a fork inherits the pipes, but must not talk into them

    def ask(self, mode: str, gold: str, answer: str) -> tuple[Equivalence, str | None]:
        """One question; only one is under way at a time."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps([mode, gold, answer]).encode() + b"\n")
                process.stdin.flush()
                line = self._line(process, WALL_SECONDS)
            except OSError:
                line = b""
            if not line:
                self._kill()
                return "timeout", None
            same, read = json.loads(line)
            return "equal" if same else "different", read

    def close(self) -> None:
        """Ends the worker of this process."""
        with self._lock:
            self._kill()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        self._kill()
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._owner = os.getpid()
        if self._line(self._process, START_SECONDS).strip() != b"ready":
            self._kill()
            raise RuntimeError(
                f"the worker of the math grader does not start; run `{sys.executable} {WORKER}` to see why"
            )
        return self._process

    @staticmethod
    def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
        """The next line of the worker; empty when it died or the time is over."""
        assert process.stdout is not None
        descriptor, line, end = process.stdout.fileno(), b"", time.monotonic() + seconds
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(descriptor, 4096) if ready else b""
            if not piece:
                return b""
            line += piece
        return line

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what could not be written is not missed
                    pipe.close()


_WORKER = _Worker()
atexit.register(_WORKER.close)
# another thread may hold the lock while this one forks
os.register_at_fork(after_in_child=lambda: _WORKER.__init__())  # type: ignore[misc]
