"""Whether two answers are mathematically the same, decided by math-verify in a process that can be killed.

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
_TOWER = re.compile(  # a power whose exponent holds a power of a power, or a power with a large exponent
    rf"{_POWER}\s*[{{(]?[^{{}}()^*]*{_POWER}\s*[{{(]?\s*(?:[0-9]{{2,}}|[^{{}}()^*]*{_POWER})"
)
_BIG_FACTORIAL = re.compile(
    rf"[0-9]{{{_MAX_FACTORIAL_DIGITS + 1},}}\s*!|!\s*[)}}]+\s*(?:!|{_POWER})|!\s*!|{_POWER}\s*(?:[{{(]\s*)*[0-9]+\s*!"
)
_MANY_DIGITS = re.compile(r"[0-9]{300,}")


@functools.lru_cache(maxsize=4096)  # the samples of a problem give the same few answers
def equivalence(gold: str, answer: str) -> Equivalence:
    """Asks math-verify. The gold comes first: the comparison is not symmetric."""
    if max(len(gold), len(answer)) > _MAX_CHARS or explodes(answer) or explodes(gold):
        return "different"
    return _WORKER.ask(gold, answer)


def explodes(text: str) -> bool:
    """Whether evaluating the text would take for ever; for a bomb that slips through there is the worker's limit."""
    return any(pattern.search(text) for pattern in (_BIG_POWER, _TOWER, _BIG_FACTORIAL, _MANY_DIGITS))


class _Worker:
    """A long-lived process that is started at the first question and again after its death."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # a fork inherits the pipes, but must not talk into them

    def ask(self, gold: str, answer: str) -> Equivalence:
        """One question; only one is under way at a time."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps([gold, answer]).encode() + b"\n")
                process.stdin.flush()
                line = self._line(process, WALL_SECONDS)
            except OSError:
                line = b""
            if not line:
                self._kill()
                return "timeout"
            return "equal" if line.strip() == b"1" else "different"

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
            raise RuntimeError(f"the math-verify worker does not start; run `{sys.executable} {WORKER}` to see why")
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
