"""A process that outlives this one by a moment, to end sandboxes that were still being set up when this one was killed.

Once a sandbox stands, the kernel ends it together with its parent. Before that there is a gap: bubblewrap's outer
process dies with us, while the inner one waits for a word from it, forever. It is still in the process group then.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CODE = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


class _Watchdog:
    """Told which process groups are alive; kills those when its pipe is closed, by whatever end of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-s", "-P", "-B", "-c", _CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt from the keyboard is not for it
            text=True,
        )

    def tell(self, sign: str, group: int) -> None:
        assert self._process.stdin is not None
        with self._lock, suppress(OSError):
            self._process.stdin.write(f"{sign}{group}\n")
            self._process.stdin.flush()


@functools.lru_cache(maxsize=1)
def _watchdog(harness: int) -> _Watchdog:
    """One for each process of the harness: a fork starts its own."""
    return _Watchdog()


def watch(group: int) -> None:
    """From now on the end of this process is the end of the group."""
    _watchdog(os.getpid()).tell("+", group)


def unwatch(group: int) -> None:
    """Takes `watch` back: the group has ended."""
    _watchdog(os.getpid()).tell("-", group)


@contextmanager
def watched(group: int) -> Iterator[None]:
    """While this lasts, the end of this process is the end of the group."""
    watch(group)
    try:
        yield
    finally:
        unwatch(group)
