"""Scores of a checkpoint, and of the validation of the evaluators, as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from harness.evaluation.validation import ValidatedTask, cut_percent, is_within, largest_difference, summarise
from harness.results.cut_off import scored_lines
from harness.results.record import Evaluation
from harness.results.render import NOTHING, format_interval
from harness.results.statistics import mean_interval
from harness.results.terminal import open_console

SCORES_WIDTH = 150  # columns where the output is not a terminal: ten of a table of scores


def print_scores(title: str, evaluations: Sequence[Evaluation], cut_decimals: Sequence[str]) -> None:
    """A row per column; `cut_decimals` names those whose published figures are cut off after two decimals."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE, header_style="bold")
    numbers = ["score %", "cut off", "pass@k", "maj@k", "truncated", "tokens"]
    for name in ("task", "problems x samples", "protocol"):
        table.add_column(name, overflow="fold")
    for name in numbers if cut_decimals else [name for name in numbers if name != "cut off"]:
        table.add_column(name, justify="right")
    for entry in evaluations:
        cut = [_cut(entry) if entry.task in cut_decimals else NOTHING] if cut_decimals else []
        table.add_row(
            entry.column
            + ("" if entry.metrics.get("sandboxed", 1) == 1 else " (not sandboxed)")
            + (" (official grader)" if entry.metrics.get("official_grader", 0) == 1 else ""),
            f"{entry.problems} x {entry.samples}",
            entry.protocol_hash[:8],
            _interval(entry),
            *cut,
            _metric(entry, "pass_at_k"),
            _metric(entry, "maj_at_k"),
            f"{100 * entry.truncated_frac:.1f} %",
            f"{entry.mean_tokens:,.0f}",
        )
    console = open_console(width=SCORES_WIDTH)
    console.print(table)
    console.print("Intervals: 95 %, clustered by problem; they speak of this checkpoint only.")
    for line in scored_lines(title, evaluations):
        console.print(line, soft_wrap=True)
    for entry in evaluations:
        own = {key: value for key, value in entry.metrics.items() if key not in _SHOWN}
        if own:
            console.print(f"{entry.column}: " + ", ".join(f"{key} {100 * value:.2f} %" for key, value in own.items()))


_SHOWN = {"avg_at_k", "pass_at_k", "maj_at_k", "correct", "extracted", "votes", "sandboxed", "official_grader"}


def print_validation(outcomes: Sequence[ValidatedTask], cut_decimals: dict[str, Sequence[str]]) -> None:
    """Ours beside theirs; `cut_decimals` by protocol."""
    table = Table(title="validation of the evaluators", title_justify="left", box=box.SIMPLE, header_style="bold")
    for name in ("model", "protocol", "task"):
        table.add_column(name, overflow="fold")
    for name in ("published %", "ours %", "cut off", "may differ by"):
        table.add_column(name, justify="right")
    table.add_column("within")
    table.add_column("source", overflow="fold")
    for outcome in outcomes:
        asked, theirs, ours = outcome.entry, outcome.published, outcome.ours
        cells = [NOTHING, NOTHING, NOTHING, "not scored"]
        if ours is not None:
            cut = _cut(ours) if outcome.task in cut_decimals.get(asked.evaluation, ()) else NOTHING
            within = "yes" if is_within(outcome) else "no"
            cells = [_interval(ours), cut, f"±{largest_difference(ours):.1f}", within]
        table.add_row(asked.checkpoint, asked.evaluation, outcome.task, f"{theirs.value:.2f}", *cells, theirs.source)
    console = open_console(width=SCORES_WIDTH)
    console.print(table)
    counts = summarise(outcomes)
    console.print(
        f"{counts['scored']} of {counts['of']} scored, {counts['within']} of them within chance of the published "
        "score: 95 %, by the spread over repeats of the same problems."
    )
    for reason in dict.fromkeys(outcome.reason for outcome in outcomes if outcome.reason):
        console.print(f"Not scored: {reason}", soft_wrap=True)
    for outcome in outcomes:
        if outcome.published.doubt:
            console.print(f"{outcome.entry.row}, {outcome.task}: {outcome.published.doubt}")


def _interval(entry: Evaluation) -> str:
    interval = mean_interval([[count / entry.samples for count in entry.correct]])
    return format_interval(interval).rstrip("†")


def _cut(entry: Evaluation) -> str:
    return cut_percent(sum(entry.correct), entry.problems * entry.samples)


def _metric(entry: Evaluation, name: str) -> str:
    return f"{100 * entry.metrics[name]:.1f}" if name in entry.metrics else NOTHING
