"""Methods by comparisons as a heat map of their differences to the baseline: where the folders are cells of a regime
map (harness.results.cells) by regime, schedule and rate, else by comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from harness.config.decodings import column_of
from harness.errors import UserError
from harness.report.source import Source
from harness.results.cells import Cell, MethodRuns, differences_to_opd, load_decodings, main_runs, matrix
from harness.results.columns import title_of
from harness.results.leaderboard import ALPHA, BASELINE
from harness.results.render import format_difference, format_interval
from harness.results.statistics import Difference, Interval, holm, mean_interval
from harness.types import UNTRAINED


@dataclass(frozen=True)
class HeatCell:
    """A method in a comparison."""

    text: str
    told: str  # under the pointer: the interval, and what it is of
    sign: str  # up or down
    share: float  # of the page's largest difference, in [0, 1]
    resolved: bool  # after Holm's correction over the whole map


@dataclass(frozen=True)
class HeatMap:
    """Of one column (a task under a decoding)."""

    title: str
    groups: tuple[tuple[str, int], ...]  # names over the columns, and how many columns each is over
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[HeatCell | None, ...]], ...]  # None: not there, or no seeds in common


@dataclass(frozen=True)
class _Measured:
    """A difference to the baseline, and the score that it is of."""

    difference: Difference
    score: Interval


Place = tuple[str, str]  # group and column
Measured = Mapping[Place, Mapping[str, _Measured]]  # by label


def heat_maps(sources: Sequence[Source]) -> tuple[list[HeatMap], bool]:
    """A map for every column, all on one scale of colours, and whether the folders form a regime map; else the columns
    are the comparisons.
    """
    found = _regime_map(sources)
    is_regime_map = bool(found)
    if not found:
        named = list(zip(names_of(sources), sources, strict=True))
        columns = dict.fromkeys(column for source in sources for column in source.evaluations)
        found = {column: {("", name): _of_board(s, column) for name, s in named} for column in columns}
    estimates = [m.difference.estimate for places in found.values() for by in places.values() for m in by.values()]
    largest = max(map(abs, estimates), default=0.0) or 1.0
    maps = [_heat_map(column, places, largest) for column, places in found.items() if any(places.values())]
    return maps, is_regime_map


def names_of(sources: Sequence[Source]) -> list[str]:
    """Each comparison by the last parts of its folder, as many as tell all of them apart."""
    parts = [source.folder.resolve().parts for source in sources]
    longest = max(map(len, parts))
    return next(
        names
        for count in range(1, longest + 1)
        if len(set(names := ["/".join(found[-count:]) for found in parts])) == len(parts) or count == longest
    )


def _regime_map(sources: Sequence[Source]) -> dict[str, Measured]:
    """By column; nothing where the runs do not stand in several cells of one map."""
    found: dict[str, Measured] = {}
    for task in dict.fromkeys(task.name for source in sources for task in source.board.tasks):
        try:
            by_decoding = load_decodings([source.folder for source in sources], task)
        except UserError:  # other tasks, engines or knobs: no map, the comparisons stand side by side
            return {}
        for decoding, cells in by_decoding.items():
            if len(cells) > 1:
                measured = {_place(cell): _of_cell(runs) for cell, runs in sorted(cells.items())}
                found[column_of(task, decoding)] = measured
    return found


def _place(cell: Cell) -> Place:
    regime, schedule, rate = cell
    return regime, f"{schedule} {rate:g}"


def _of_cell(runs: Sequence[MethodRuns]) -> dict[str, _Measured]:
    table = {r.label: r for r in main_runs(runs)}
    return {
        label: _Measured(difference, mean_interval(matrix(table[label], sorted(table[label].evaluations))))
        for label, difference in differences_to_opd(table).items()
    }


def _of_board(source: Source, column: str) -> dict[str, _Measured]:
    scores = [(row.label, row.scores.get(column)) for row in source.board.rows if row.method not in UNTRAINED]
    return {
        label: _Measured(score.difference, score.interval)
        for label, score in scores
        if score is not None and score.difference is not None
    }


def _heat_map(column: str, measured: Measured, largest: float) -> HeatMap:
    every = [((place, label), m) for place, found in measured.items() for label, m in found.items()]
    adjusted = holm([m.difference.p_value for _, m in every])
    cells = {
        (place, label): _cell(
            m, largest, resolved=m.difference.seeds > 1 and p <= ALPHA, where=", ".join(filter(None, place))
        )
        for ((place, label), m), p in zip(every, adjusted, strict=True)
    }
    return HeatMap(
        title=title_of(column),
        groups=tuple((name, len(list(places))) for name, places in groupby(place[0] for place in measured)),
        columns=tuple(place[1] for place in measured),
        rows=tuple((label, tuple(cells.get((place, label)) for place in measured)) for label in _by_mean(measured)),
    )


def _by_mean(measured: Measured) -> list[str]:
    """Labels by the number of places that they have, then by their mean difference there, the best first."""
    differences: dict[str, list[float]] = {}
    for found in measured.values():
        for label, m in found.items():
            differences.setdefault(label, []).append(m.difference.estimate)
    means = {label: sum(found) / len(found) for label, found in differences.items()}
    return sorted(differences, key=lambda label: (-len(differences[label]), -means[label], label))


def _cell(measured: _Measured, largest: float, resolved: bool, where: str) -> HeatCell:
    difference = measured.difference
    said = "resolved" if resolved else "not resolved"
    return HeatCell(
        text=f"{100 * difference.estimate:+.1f}",
        told=f"{where}: {format_difference(difference)} points over {BASELINE}, {said}; "
        f"scores {format_interval(measured.score)} %",
        sign="up" if difference.estimate > 0 else "down",
        share=abs(difference.estimate) / largest,
        resolved=resolved,
    )
