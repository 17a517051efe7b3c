"""What continuous integration asserts about a comparison: a list of bounds on scores and training metrics.

    - name: tropd learns
      value: score.arithmetic.tropd
      minus: score.arithmetic.student        # optional
      at_least: 0.1                          # and/or at_most

A quantity is a dotted name, and its value is the mean over the seeds of the completed runs:

    score.<task>.<method>                    accuracy, in [0, 1]
    metric.<method>.<key>.<summary>          a key of metrics.jsonl; summary: mean | first | last | second_half_mean

<method> is the label of a row of the leaderboard. A summary is over the steps that have the key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.errors import UserError
from harness.results.collect import Protocols, find_runs, key_of, select_evaluations
from harness.results.record import METRICS_FILE, RunRecord, read_metrics
from harness.results.terminal import open_console, shown

SUMMARIES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda values: math.fsum(values) / len(values),
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
    "second_half_mean": lambda values: math.fsum(values[len(values) // 2 :]) / (len(values) - len(values) // 2),
}


@dataclass(frozen=True)
class Expectation:
    """A bound on a quantity, or on the difference of two."""

    name: str  # what is expected, in words
    value: str  # dotted name of a quantity
    minus: str | None = None  # subtracted from it
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Measured:
    """What was measured."""

    name: str
    measured: float
    bound: str  # such as ">= 0.1"
    ok: bool


def read_yaml(path: Path, what: str) -> Any:
    """What a YAML file holds; UserError for one that cannot be read, `what` says what it should be of."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a YAML file of {what}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML ({' '.join(str(error).split())}); mend it.") from error


def parse_expectations(entries: Any, source: str) -> list[Expectation]:
    """Builds expectations from a parsed list of mappings; `source` is named in errors."""
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise UserError(f"{source}: expectations must be a list of mappings with the keys name, value and a bound.")
    return [_parse_entry(entry, f"{source} entry {number}") for number, entry in enumerate(entries, start=1)]


def _parse_entry(entry: Any, where: str) -> Expectation:
    known = [field.name for field in fields(Expectation)]
    if not isinstance(entry, Mapping):
        raise UserError(f"{where} is {entry!r}: it must be a mapping with the keys {', '.join(known)}.")
    unknown = [str(key) for key in entry if key not in known]
    if unknown:
        raise UserError(f"{where} has the unknown key {unknown[0]}; known: {', '.join(known)}.")
    for key in ("name", "value"):
        if not isinstance(entry.get(key), str):
            raise UserError(f"{where}: {key} must be text, got {entry.get(key)!r}.")
    if not isinstance(entry.get("minus"), str | None):
        raise UserError(f"{where}: minus must be text, got {entry['minus']!r}.")
    for key in ("at_least", "at_most"):
        bound = entry.get(key)
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int | float)):
            raise UserError(f"{where}: {key} must be a number, got {bound!r}.")
    if entry.get("at_least") is None and entry.get("at_most") is None:
        raise UserError(f"{where} ({entry['name']}) has no bound; give at_least, at_most or both.")
    return Expectation(**entry)


def measure_expectations(
    expectations: Sequence[Expectation],
    folder: Path,
    records: Sequence[RunRecord] | None = None,
    protocols: Protocols | None = None,
) -> list[Measured]:
    """Measures every expectation.

    Args:
        expectations: see the top of the file.
        folder: of the comparison; metrics are read from its run folders.
        records: the runs that count; all of the folder when None.
        protocols: as in `select_evaluations`.
    """
    found = find_runs(folder)
    completed = [
        record
        for record in (records if records is not None else [run.record for run in found])
        if record.status == "completed"
    ]
    folders = {key_of(run.record): run.folder for run in found}
    quantities = _Quantities(completed, folders, protocols)
    return [_measure(expectation, quantities) for expectation in expectations]


def _measure(expectation: Expectation, quantities: _Quantities) -> Measured:
    measured = quantities.value(expectation.value)
    if expectation.minus is not None:
        measured -= quantities.value(expectation.minus)
    bounds, ok = [], math.isfinite(measured)
    if expectation.at_least is not None:
        bounds.append(f">= {expectation.at_least:g}")
        ok = ok and measured >= expectation.at_least
    if expectation.at_most is not None:
        bounds.append(f"<= {expectation.at_most:g}")
        ok = ok and measured <= expectation.at_most
    return Measured(expectation.name, measured, " and ".join(bounds), ok)


class _Quantities:
    """Looks dotted names up in the completed runs."""

    def __init__(
        self,
        completed: Sequence[RunRecord],
        folders: Mapping[tuple[str, int], Path | None],
        protocols: Protocols | None,
    ) -> None:
        self.evaluations = select_evaluations(completed, protocols)
        self.labels = sorted({record.label for record in completed})
        self.seeds = {label: sorted(run.seed for run in completed if run.label == label) for label in self.labels}
        self.folders = folders
        self._rows: dict[Path, list[dict[str, float]]] = {}

    def value(self, name: str) -> float:
        """The value of a dotted name; UserError for an unknown one."""
        kind, _, rest = name.partition(".")
        if kind == "score":
            return self._score(name, rest)
        if kind == "metric":
            return self._metric(name, rest)
        raise UserError(f"{name}: a quantity starts with score. or metric., not {kind!r}.")

    def _score(self, name: str, rest: str) -> float:
        task, rest = _split(name, rest, self.evaluations, "task")
        runs = self.evaluations[task]
        known = sorted({label for label, _ in runs})
        if rest not in known:
            raise UserError(f"{name}: no completed run of {rest!r} was evaluated on {task}; known: {', '.join(known)}.")
        return SUMMARIES["mean"]([entry.score for (label, _), entry in runs.items() if label == rest])

    def _metric(self, name: str, rest: str) -> float:
        label, rest = _split(name, rest, self.labels, "method")
        key, _, summary = rest.rpartition(".")
        if summary not in SUMMARIES or not key:
            raise UserError(f"{name}: must end with .<key>.<summary>; summaries: {', '.join(SUMMARIES)}.")
        values = []
        for seed in self.seeds[label]:
            folder = self.folders.get((label, seed))
            if folder is None or not (folder / METRICS_FILE).exists():
                raise UserError(f"{name}: {label} seed {seed} has no {METRICS_FILE} here; run it, or drop the bound.")
            rows = self._read(folder)
            steps = [row[key] for row in rows if row.get(key) is not None]
            if not steps:
                known = ", ".join(sorted({other for row in rows for other in row} - {"step"}))
                raise UserError(f"{name}: {folder / METRICS_FILE} has no {key!r}; known: {known or 'none'}.")
            values.append(SUMMARIES[summary](steps))
        return SUMMARIES["mean"](values)

    def _read(self, folder: Path) -> list[dict[str, float]]:
        if folder not in self._rows:
            self._rows[folder] = read_metrics(folder)
        return self._rows[folder]


def _split(name: str, rest: str, known: Sequence[str] | Mapping[str, Any], kind: str) -> tuple[str, str]:
    """The known name (which may contain dots) that `rest` begins with, and what follows its dot; the longest first."""
    for candidate in sorted(known, key=len, reverse=True):
        if rest.startswith(f"{candidate}."):
            return candidate, rest.removeprefix(f"{candidate}.")
    listed = ", ".join(sorted(known)) or "none"
    raise UserError(f"{name}: unknown {kind} {rest.partition('.')[0]!r}; with completed runs: {listed}.")


def print_measured(outcomes: Sequence[Measured], console: Console | None = None) -> None:
    """A table with a line per expectation."""
    console = open_console(console)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "expectation", "measured", "bound"):
        table.add_column(name, justify="right" if name == "measured" else "left", overflow="fold")
    for outcome in outcomes:
        verdict = Text("ok", style="green") if outcome.ok else Text("FAILED", style="bold red")
        table.add_row(verdict, shown(outcome.name), f"{outcome.measured:.4g}", shown(outcome.bound))
    console.print(table)
