"""The live view of a comparison: one line per run that is being worked on, read from the runs' own progress files.

Works the same whether runs are threads, processes or cluster jobs on a shared file system; shows nothing when the
output is not a terminal.
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

REFRESH_S = 0.5


class Monitor:
    """A context manager that watches run folders from a thread."""

    def __init__(self, folders: Sequence[Path], console: Console) -> None:
        self.folders = folders
        self.console = console
        self.started_at = time.time()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Monitor:
        if self.console.is_terminal:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        with Live(self.render(), console=self.console, transient=True, auto_refresh=False) as live:
            while not self._stop.wait(REFRESH_S):
                live.update(self.render(), refresh=True)

    def render(self) -> Group:
        """The lines as they stand now."""
        states = [(folder, _read(folder / "progress.json")) for folder in self.folders]
        finished = sum(s is not None and s["phase"] in ("completed", "failed") for _, s in states)
        table = Table.grid(padding=(0, 1))
        for folder, state in states:
            if state is not None and state["phase"] not in ("completed", "failed") and state["at"] >= self.started_at:
                table.add_row(*run_line(f"{folder.parent.name} {folder.name}", state))
        elapsed = time.time() - self.started_at
        return Group(table, Text(f"{finished} of {len(states)} runs finished, {elapsed:.0f} s", style="dim"))


def run_line(name: str, state: dict[str, Any]) -> tuple[Text | ProgressBar, ...]:
    """One run: name, phase, bar, step, accuracy so far, tokens/s, time left."""
    done, total, rate = state["done"], state["total"], state.get("rate")
    left = f"{(total - done) / rate:.0f} s left" if rate and total else ""
    accuracy = f"accuracy {100 * state['accuracy']:.0f} %" if state.get("accuracy") is not None else ""
    speed = f"{state['tokens_per_s']:,.0f} tokens/s" if state.get("tokens_per_s") else ""
    count = f"{done}/{total}" if total else ""
    bar = ProgressBar(total=total or 1, completed=done, width=20)
    return shown(name, style="bold"), shown(state["phase"]), bar, Text(count), Text(accuracy), Text(speed), Text(left)


def _read(path: Path) -> dict[str, Any] | None:
    """None where there is none yet, or one that cannot be read: the run writes the next in a moment."""
    try:
        return dataclasses.asdict(parse(ProgressState, json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, RecursionError):
        return None
