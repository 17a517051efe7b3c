"""The live view of a comparison: one line per run that is being worked on, read from the runs' own progress files.

Works the same whether runs are threads, processes or cluster jobs on a shared file system. Where the output is not a
terminal it says a line per run and minute, and nothing in the first minute.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.console.progress import ProgressState
from harness.results.schema import parse
from harness.results.terminal import shown
from harness.types import UNTRAINED

REFRESH_S = 0.5
REPORT_EVERY_S = 60.0  # where the output is a file
ENDED = ("completed", "failed")
LEAST_SHARE = 0.02  # of the comparison that must be done before its end is foretold
TRAINING_SHARE = 0.9  # of a run; evaluation is the rest

State = dict[str, Any] | None  # of a run, as it wrote it; None: nothing yet


class Monitor:
    """A context manager that watches run folders from a thread."""

    def __init__(self, folders: Sequence[Path], console: Console, title: str = "") -> None:
        self.folders = folders
        self.console = console
        self.title = title
        self.started_at = time.time()
        self._done_before = self._share(self._states())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch if console.is_terminal else self._report, daemon=True)

    def __enter__(self) -> Monitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        if self.title:
            self.console.print(self.title, highlight=False)
        with Live(self.render(), console=self.console, transient=True, auto_refresh=False) as live:
            while not self._stop.wait(REFRESH_S):
                live.update(self.render(), refresh=True)

    def _report(self) -> None:
        while not self._stop.wait(REPORT_EVERY_S):
            self.report()

    def report(self) -> None:
        """The lines as they stand now, as plain text."""
        states = self._states()
        for name, state in self._live(states):
            cells = [str(cell) for cell in run_line(name, state) if isinstance(cell, Text) and str(cell)]
            self.console.print(", ".join(cells), highlight=False, soft_wrap=True)
        self.console.print(self._summary(states), highlight=False, soft_wrap=True)

    def render(self) -> Group:
        """The lines as they stand now."""
        states = self._states()
        table = Table.grid(padding=(0, 1))
        for name, state in self._live(states):
            table.add_row(*run_line(name, state))
        return Group(table, Text(self._summary(states), style="dim"))

    def where_it_stands(self) -> list[str]:
        """What an interruption leaves of every run that has begun, and how many have not."""
        states = self._states()
        lines = [f"{name}: {_way_on(state)}" for name, state in self._live(states)]
        begun = sum(_ended(state) for state in states) + len(lines)
        return [*lines, f"{begun - len(lines)} of {len(states)} runs finished, {len(states) - begun} not begun"]

    def _states(self) -> list[State]:
        return [_read(folder / "progress.json") for folder in self.folders]

    def _live(self, states: Sequence[State]) -> list[tuple[str, dict[str, Any]]]:
        """Those that this command works on."""
        return [
            (f"{folder.parent.name} {folder.name}", state)
            for folder, state in zip(self.folders, states, strict=True)
            if state is not None and not _ended(state) and state["at"] >= self.started_at
        ]

    def _summary(self, states: Sequence[State]) -> str:
        finished = sum(_ended(state) for state in states)
        parts = [f"{finished} of {len(states)} runs finished", duration(time.time() - self.started_at)]
        share = self._share(states)
        if finished < len(states) and not self._live(states) and share <= self._done_before:
            parts.append("workers are starting")
        if share - self._done_before >= LEAST_SHARE and share < 1:
            seconds = (time.time() - self.started_at) * (1 - share) / (share - self._done_before)
            parts.append(f"about {duration(seconds)} left")
        return ", ".join(parts)

    def _share(self, states: Sequence[State]) -> float:
        """How much of the comparison is done; models that are evaluated only count for nothing."""
        trained = [s for folder, s in zip(self.folders, states, strict=True) if folder.parent.name not in UNTRAINED]
        return sum(map(_share_of, trained)) / max(len(trained), 1)


def run_line(name: str, state: dict[str, Any]) -> tuple[Text | ProgressBar, ...]:
    """One run: name, phase, bar, step, accuracy so far, tokens/s, time left."""
    done, total, rate = state["done"], state["total"], state.get("rate")
    left = f"{duration((total - done) / rate)} left" if rate and total else ""
    accuracy = f"accuracy {100 * state['accuracy']:.0f} %" if state.get("accuracy") is not None else ""
    speed = f"{state['tokens_per_s']:,.0f} tokens/s" if state.get("tokens_per_s") else ""
    count = f"{done}/{total}" if total else ""
    if total and state["phase"] == "training" and state.get("resumed"):
        count += f" (resumed at {state['resumed']})"
    bar = ProgressBar(total=total or 1, completed=done, width=20)
    return shown(name, style="bold"), shown(state["phase"]), bar, Text(count), Text(accuracy), Text(speed), Text(left)


def duration(seconds: float) -> str:
    """As one says it: 42 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _way_on(state: dict[str, Any]) -> str:
    if state["phase"].startswith("evaluating"):
        return "stopped while it was evaluated; goes on with the samples that it has"
    if state.get("saved"):
        return f"stopped at step {state['done']}; goes on from step {state['saved']}"
    return "stopped before its first checkpoint; starts again"


def _share_of(state: State) -> float:
    if state is None:
        return 0.0
    if _ended(state):
        return 1.0
    if state["phase"] == "training" and state["total"]:
        return TRAINING_SHARE * state["done"] / state["total"]
    return TRAINING_SHARE if state["phase"].startswith("evaluating") else 0.0


def _ended(state: State) -> bool:
    return state is not None and state["phase"] in ENDED


def _read(path: Path) -> State:
    """None where there is none yet, or one that cannot be read: the run writes the next in a moment."""
    try:
        return dataclasses.asdict(parse(ProgressState, json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, RecursionError):
        return None
