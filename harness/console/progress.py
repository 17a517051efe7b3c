"""Showing progress: bars of the command that runs in the terminal, and a small file through which a run tells a
watching process how far it is.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from harness.files import write_text

WRITE_EVERY_S = 0.25


class Bar(Protocol):
    """What a caller may do with a bar."""

    def advance(self, amount: int = 1) -> None:
        """Counts `amount` more units as done."""


MakeBar = Callable[[str, int, str], AbstractContextManager[Bar]]  # (description, total, unit)


class _TqdmBar:
    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def advance(self, amount: int = 1) -> None:
        self._bar.update(amount)


@contextmanager
def terminal_bar(description: str, total: int, unit: str) -> Iterator[Bar]:
    """A bar on stderr with rate and time left; silent when stderr is not a terminal, and for the first second."""
    quiet = not sys.stderr.isatty()
    with tqdm(total=total, desc=description, unit=f" {unit}", disable=quiet, delay=1.0, leave=False) as bar:
        yield _TqdmBar(bar)


@dataclass(frozen=True)
class ProgressState:
    """The content of progress.json."""

    phase: str
    done: int  # steps, or whatever the phase counts
    total: int  # 0: not known
    pid: int
    at: float  # seconds since the epoch
    rate: float | None = None  # a second
    tokens_per_s: float | None = None
    accuracy: float | None = None  # the newest development score, in [0, 1]
    resumed: int | None = None  # the step that this attempt went on from; 0: from the start
    saved: int | None = None  # of the newest whole checkpoint


class RunProgress:
    """Writes `progress.json` in a run's folder: what the live line of the run shows (harness.console.monitor). Without
    a path, silent.
    """

    def __init__(self, path: Path | None, steps: int) -> None:
        self.path = path
        self._state: dict[str, Any] = {"phase": "loading", "done": 0, "total": steps, "pid": os.getpid()}
        self._steps, self._written_at, self._first = steps, 0.0, 0
        self._clock = time.time()

    def phase(self, name: str, done: int = 0, total: int = 0) -> None:
        """A new phase begins."""
        self._clock, self._first = time.time(), done
        self._state |= {"phase": name, "done": done, "total": total, "rate": None}
        self._write(force=True)

    def step(self, step: int, row: Mapping[str, float]) -> None:
        """One optimiser step is done; `row` is its metrics."""
        if self._state["phase"] != "training":
            self._state |= {"resumed": step - 1, "saved": step - 1}
            self.phase("training", step - 1, self._steps)
        seconds = sum(row.get(f"time/{name}_s", 0.0) for name in ("rollout", "scoring", "update"))
        self._state["tokens_per_s"] = row["tokens/student"] / max(seconds, 1e-9)
        scores = [value for key, value in row.items() if key.startswith("eval/")]
        if scores:
            self._state["accuracy"] = scores[0]
        self._advance(step)

    def saved(self, step: int) -> None:
        """A checkpoint from which the run can go on is whole on disk."""
        self._state["saved"] = step
        self._write(force=True)

    @contextmanager
    def bar(self, description: str, total: int, unit: str) -> Iterator[Bar]:
        """A phase with a count; has the signature of MakeBar."""
        self.phase(description, 0, total)
        progress = self

        class _Bar:
            def advance(self, amount: int = 1) -> None:
                progress._advance(progress._state["done"] + amount)

        yield _Bar()

    def finish(self, status: str) -> None:
        """The run has ended."""
        self._state |= {"phase": status}
        self._write(force=True)

    def _advance(self, done: int) -> None:
        elapsed = max(time.time() - self._clock, 1e-9)
        self._state |= {"done": done, "rate": (done - self._first) / elapsed}
        self._write()

    def _write(self, force: bool = False) -> None:
        now = time.time()
        if self.path is not None and (force or now - self._written_at > WRITE_EVERY_S):
            self._written_at = now
            write_text(self.path, json.dumps({**self._state, "at": now}), durable=False)
