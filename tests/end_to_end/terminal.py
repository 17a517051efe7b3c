"""A command on a pseudo-terminal, as a person has it: what it shows, and keys that are pressed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from dataclasses import dataclass

from harness.files import ROOT

CTRL_C = b"\x03"
SIZE = (40, 140)  # lines and columns
MOVES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colours, and where the cursor goes


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    shown: str  # without colours; lines that were overwritten stand one after the other
    first_s: float | None  # until it showed anything


def on_terminal(*arguments: str, stop_at: str = "", limit_s: float = 240.0) -> Ended:
    """Runs `python -m <arguments>`; presses Ctrl-C once where `stop_at` (a pattern) has been shown."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execve(sys.executable, [sys.executable, "-m", *arguments], {**os.environ, "TERM": "xterm"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
    started, first, shown, pressed = time.monotonic(), None, "", not stop_at
    try:
        while time.monotonic() - started < limit_s:
            if not select.select([terminal], [], [], 0.2)[0]:
                continue
            try:
                piece = os.read(terminal, 2**16)
            except OSError:  # nobody holds the other end any more
                break
            if not piece:
                break
            first = first or time.monotonic() - started
            shown += MOVES.sub("", piece.decode(errors="replace"))
            if not pressed and re.search(stop_at, shown):
                os.write(terminal, CTRL_C)
                pressed = True
        else:
            os.kill(child, 9)
    finally:
        os.close(terminal)
    return Ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.replace("\r", "\n"), first)
