"""Ends the worker processes of a sweep when the command that started them ends, by whatever signal: a run resumes, an
orphan surprises.
"""

from __future__ import annotations

import os
import threading
import time

VARIABLE = "HARNESS_SWEEP_PID"  # the command's process id
LOOK_EVERY_S = 0.5
ORPHANED = 143  # exit code


def lead() -> None:
    """Makes this process the one whose end ends its workers."""
    os.environ[VARIABLE] = str(os.getpid())


def follow() -> None:
    """In a worker that the leading process has started: ends with it. Elsewhere (the leader itself, another machine)
    nothing.
    """
    leader = os.environ.get(VARIABLE)
    if leader is None or os.getppid() != int(leader) or any(t.name == VARIABLE for t in threading.enumerate()):
        return
    threading.Thread(target=_end_with, args=(int(leader),), name=VARIABLE, daemon=True).start()


def _end_with(leader: int) -> None:
    while os.getppid() == leader:
        time.sleep(LOOK_EVERY_S)
    os._exit(ORPHANED)
