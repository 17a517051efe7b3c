"""Published numbers as typed rows, from results/reference/*.yaml: shown beside ours, never mixed with them.

A YAML file holds tables; a table's rows hold one value per benchmark, and optionally the printed average. See the head
of results/reference/tropd.yaml for the keys.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UserError
from harness.files import ROOT
from harness.results.statistics import binomial_standard_error

REFERENCE_DIR = ROOT / "results" / "reference"
AVERAGE = "average"  # of several tasks: a column of a leaderboard, and the name under which a printed average stands

TABLE_KEYS = {"name", "caption", "setting", "source", "benchmarks", "rows"}
OPTIONAL_TABLE_KEYS = {"doubts", "confirmed"}
ROW_KEYS = {"label", "method", "values"}


@dataclass(frozen=True)
class ReferenceRow:
    """One published cell."""

    table: str  # name of the table
    setting: str | None  # the Setting of conf/setting/ that reproduces the table; None: no training behind it
    label: str  # the method or model as printed
    method: str | None  # the file in baselines/, "student" or "teacher"; None: no counterpart here
    benchmark: str  # name of a task, or AVERAGE
    value: float  # percent, as printed
    source: str
    doubt: str | None  # why the cell may not be what it seems
    confirmed: bool  # a second public source repeats it
    trials: int | None = None  # problems times samples per problem; None: not known, or an average

    @property
    def standard_error(self) -> float | None:
        """The least noise of this cell, one standard error in points: that of `trials` independent successes."""
        return None if self.trials is None else 100 * binomial_standard_error(self.value / 100, self.trials)


def load_reference(folder: Path = REFERENCE_DIR) -> list[ReferenceRow]:
    """All published cells, file by file in the order of their names; UserError names what is wrong where."""
    rows: list[ReferenceRow] = []
    for path in sorted(folder.glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        _check_keys(content, {"tables"}, {"designs"}, path.name)
        trials = {task: problems * samples for task, (problems, samples) in content.get("designs", {}).items()}
        for table in content["tables"]:
            rows.extend(_cells(table, trials, path.name))
    return rows


@functools.lru_cache
def reference_tables() -> tuple[str, ...]:
    """The names of the published tables, in the order of the files."""
    return tuple(dict.fromkeys(row.table for row in load_reference()))


def published_rows(setting: str, tables: Sequence[str] = (), folder: Path = REFERENCE_DIR) -> tuple[ReferenceRow, ...]:
    """The cells to show beside a comparison: those of the named tables, else of the tables that its
    Setting reproduces.
    """
    rows = load_reference(folder)
    known = dict.fromkeys(row.table for row in rows)
    for name in tables:
        if name not in known:
            raise UserError(f"There is no published table {name!r} in results/reference; known: {', '.join(known)}.")
    return tuple(row for row in rows if (row.table in tables if tables else row.setting == setting))


def _cells(table: Mapping[str, Any], trials: Mapping[str, int], file: str) -> Iterator[ReferenceRow]:
    where = f"{file}: table {table.get('name')!r}"
    _check_keys(table, TABLE_KEYS, OPTIONAL_TABLE_KEYS, where)
    benchmarks: list[str] = table["benchmarks"]
    known = {(row.get("label"), benchmark) for row in table["rows"] for benchmark in (*benchmarks, AVERAGE)}
    doubts = {cell: entry["text"] for entry in table.get("doubts", []) for cell in _named(entry, known, where)}
    confirmed = {cell for entry in table.get("confirmed", []) for cell in _named(entry, known, where)}
    for row in table["rows"]:
        _check_keys(row, ROW_KEYS, {AVERAGE}, f"{where}, row {row.get('label')!r}")
        label, values = row["label"], row["values"]
        if len(values) != len(benchmarks):
            raise UserError(f"{where}, row {label!r}: {len(values)} values for {len(benchmarks)} benchmarks.")
        cells = dict(zip(benchmarks, values, strict=True))
        if AVERAGE in row:
            cells[AVERAGE] = row[AVERAGE]
        for benchmark, value in cells.items():
            if value is None:  # not reported
                continue
            cell = (label, benchmark)
            yield ReferenceRow(
                table=table["name"],
                setting=table["setting"],
                label=label,
                method=row["method"],
                benchmark=benchmark,
                value=float(value),
                source=table["source"],
                doubt=doubts.get(cell),
                confirmed=cell in confirmed,
                trials=trials.get(benchmark),
            )


def _named(entry: Mapping[str, Any], known: set[tuple[Any, str]], where: str) -> list[tuple[str, str]]:
    cells = [(entry["label"], benchmark) for benchmark in entry["benchmarks"]]
    for cell in cells:
        if cell not in known:
            raise UserError(f"{where}: {cell[0]!r} / {cell[1]!r} is no cell of it.")
    return cells


def _check_keys(entry: Mapping[str, Any], needed: set[str], optional: set[str], where: str) -> None:
    if missing := needed - set(entry):
        raise UserError(f"{where}: {sorted(missing)[0]} is missing.")
    if unknown := set(entry) - needed - optional:
        raise UserError(f"{where}: unknown key {sorted(unknown)[0]!r}.")
