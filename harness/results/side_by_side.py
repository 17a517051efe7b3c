"""Two runs or folders side by side in the terminal, or one held against the other: `python -m harness.compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from harness.config.decodings import decoding_of, task_of
from harness.errors import UserError
from harness.results.columns import title_of
from harness.results.distance import DistancePair, format_nats, pair_distances
from harness.results.orders import Order, find_turns
from harness.results.record import RunRecord
from harness.results.render import ONE_SEED, format_chance, format_difference, format_interval
from harness.results.sides import (
    BaselineCheck,
    Pair,
    find_differences,
    hold_against,
    load_side,
    matched_labels,
    pair_up,
)
from harness.results.terminal import shown


def compare(a: Path, b: Path, console: Console) -> int:
    """Prints the two sides; raises UserError where they share nothing to compare."""
    left, right = load_side(a), load_side(b)
    pairs = pair_up(left, right)
    distances = pair_distances(left, right, matched_labels(left, right))
    console.print(shown(f"A = {a}\nB = {b}\n"))
    _print_table(console, "What differs", ("", "A", "B"), _difference_rows(left, right))
    if distances:
        title = "Reverse KL to the teacher, nats per token, 95 % intervals, on the same prompts and seeds"
        _print_table(console, title, ("row", "seeds", "A", "B", "B minus A", "B nearer"), map(_distance_row, distances))
    if not pairs and not distances:
        raise UserError(
            f"{a} and {b} share no finished evaluation: the same row (or one row each), task, protocol and seed."
        )
    if not pairs:
        return 0
    header = ("task", "row", "seeds", "A", "B", "B minus A", "B above A")
    _print_table(console, "Scores in %, 95 % intervals, on the same problems and seeds", header, map(_pair_row, pairs))
    for line in _turns(pairs):
        console.print(shown(line))
    console.print(shown(_explain(pairs), style="dim"))
    return 0


def check_baseline(folder: Path, baseline: Path, console: Console) -> int:
    """Prints a line per score; 1 if a score lies outside its interval or a run failed."""
    verdicts = hold_against(load_side(folder), load_side(baseline))
    if not verdicts:
        raise UserError(f"{folder} has no score of a task that {baseline} has; evaluate it first.")
    rows = [_verdict_row(verdict) for verdict in verdicts]
    _print_table(console, f"{folder} against {baseline}", ("", "task", "row", "score", "baseline", ""), rows)
    return 0 if all(verdict.ok for verdict in verdicts) else 1


def _difference_rows(a: Sequence[RunRecord], b: Sequence[RunRecord]) -> list[tuple[str, str, str]]:
    changed = find_differences(a, b)
    return [(key, _show(left), _show(right)) for key, (left, right) in changed.items()] or [("nothing", "", "")]


def _show(value: Any) -> str:
    return "–" if value is None else str(value)


def _pair_row(pair: Pair) -> tuple[str, ...]:
    difference = pair.difference
    return (
        *(title_of(pair.task), pair.label, ", ".join(pair.seeds), format_interval(pair.a), format_interval(pair.b)),
        *(format_difference(difference), format_chance(difference.improvement)),
    )


def _distance_row(pair: DistancePair) -> tuple[str, ...]:
    values = (format_nats(pair.a, ONE_SEED), format_nats(pair.b, ONE_SEED), format_nats(pair.difference, ONE_SEED, "+"))
    return pair.label, ", ".join(map(str, pair.seeds)), *values, format_chance(pair.difference.improvement)


def _turns(pairs: Sequence[Pair]) -> list[str]:
    """A line for each row whose difference has another sign under another decoding; resolved: an interval over two or
    more seeds without 0.
    """
    rows: dict[tuple[str, str], dict[str, list[Order]]] = {}
    for pair in pairs:
        found = pair.difference
        resolved = found.seeds > 1 and not found.low <= 0 <= found.high
        order = Order("B", "A", found.estimate, resolved=resolved)
        rows.setdefault((task_of(pair.task), pair.label), {})[decoding_of(pair.task)] = [order]
    return [
        f"{task}, {label}: the order turns round between decodings: {turned}, {turned.turn.value}."
        for (task, label), under in rows.items()
        for turned in find_turns(under)
    ]


def _explain(pairs: Sequence[Pair]) -> str:
    least = min(100 * pair.difference.detectable for pair in pairs)
    return (
        "B above A: how often B scores higher on a problem and seed, ties count half. Intervals are not corrected "
        f"for the number of rows. Differences under {least:.1f} points cannot be seen here (80 % power at 5 %, "
        "two-sided). † one seed: this checkpoint only."
    )


def _verdict_row(verdict: BaselineCheck) -> tuple[str, ...]:
    score = "–" if verdict.score is None else f"{100 * verdict.score:.1f}"
    mark = "ok" if verdict.ok else "FAILED"
    return mark, title_of(verdict.task), verdict.label, score, format_interval(verdict.baseline), verdict.reason


def _print_table(console: Console, title: str, header: Sequence[str], rows: Any) -> None:
    table = Table(title=shown(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in header:
        table.add_column(shown(name), overflow="fold")
    for row in rows:
        table.add_row(*(shown(cell, style={"FAILED": "bold red", "ok": "green"}.get(cell, "")) for cell in row))
    console.print(table)
