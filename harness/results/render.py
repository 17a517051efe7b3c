"""The leaderboard as Markdown and as tables in the terminal, from the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.errors import UserError
from harness.results.leaderboard import BASELINE, Cost, FailedRun, Leaderboard, Row, Task, leaderboard_to_dict
from harness.results.record import UNTRAINED, write_json, write_text
from harness.results.statistics import Difference, Interval

NOTHING = "–"
ONE_SEED = "†"  # marks an interval that speaks of a checkpoint, not of the method
_PLAIN_WIDTH = 100  # columns where the output is not a terminal


@dataclass(frozen=True)
class Sheet:
    """One table; `header` and each of `rows` have the same number of cells."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    names: int = 2  # leading columns that are names, and stand left; the others are numbers


def format_interval(interval: Interval) -> str:
    """`73.4 [70.1, 76.7]`, in percent."""
    mark = ONE_SEED if interval.seeds == 1 else ""
    return f"{_percent(interval.estimate)} [{_percent(interval.low)}, {_percent(interval.high)}]{mark}"


def format_difference(difference: Difference) -> str:
    """`+30.6 [26.0, 35.2]`, in percentage points."""
    text = format_interval(difference)
    return text if text.startswith(("-", "0.0 ")) else f"+{text}"


def _percent(share: float) -> str:
    text = f"{100 * share:.1f}"
    return "0.0" if text == "-0.0" else text


def describe(board: Leaderboard) -> str:
    """The line that says what the table is."""
    tasks = "; ".join(
        f"{task.name} ({task.problems} problems × {task.samples} samples, protocol {task.protocol_hash[:8]})"
        for task in board.tasks
    )
    return (
        f"Setting {board.setting}, training hash {board.training_hash}, engine {board.engine}. "
        f"Tasks: {tasks or 'none evaluated'}. Seeds: {_join(board.seeds)}. "
        f"Scores in %, with the 95 % interval of the mean over problems and training seeds "
        f"({ONE_SEED} one seed: problems only, this checkpoint only). Made by `{board.command}`."
    )


def footnotes(board: Leaderboard) -> list[str]:
    """Where the numbers come from."""
    return [
        f"Cost: mean per completed run, peak memory the maximum; measured on {', '.join(board.hardware) or 'unknown'}.",
        f"Code: commit {', '.join(board.commits) or 'unknown'}.",
    ]


def build_sheets(board: Leaderboard) -> list[Sheet]:
    """A table per task and one of costs; failed runs are rows of each task's table."""
    sheets = [_task_sheet(board, task) for task in board.tasks] or [_failures_sheet(board)]
    return [*sheets, _cost_sheet(board)] if board.rows else sheets


def _task_sheet(board: Leaderboard, task: Task) -> Sheet:
    header = ("method", "seeds", "score", f"minus {BASELINE}", "truncated")
    winner = board.winners[task.name]
    above = [_score_cells(board, row, task) for row in board.rows if row.method != "teacher"]
    below = [_score_cells(board, row, task) for row in board.rows if row.method == "teacher"]
    failed = [_failure_cells(run, len(header)) for run in board.failed]
    note = (
        f"Winner: {winner}; its difference to every other method is resolved (all pairs, Holm-corrected, 5 %)."
        if winner
        else "No winner: no method's difference to every other one is resolved (all pairs, Holm-corrected, 5 %)."
    )
    return Sheet(task.name, header, (*above, *failed, *below), note)


def _score_cells(board: Leaderboard, row: Row, task: Task) -> tuple[str, ...]:
    score = row.scores.get(task.name)
    if score is None:
        return row.label, _join(row.seeds), "not evaluated", NOTHING, NOTHING
    seeds = _join(score.seeds)
    if row.method not in UNTRAINED and len(score.seeds) < len(board.seeds):
        seeds += f" ({len(score.seeds)} of {len(board.seeds)})"
    difference = NOTHING
    if score.difference is not None:
        difference = format_difference(score.difference)
        if score.difference_seeds != score.seeds:
            difference += (
                f" on {'seed' if len(score.difference_seeds) == 1 else 'seeds'} {_join(score.difference_seeds)}"
            )
    won = " (winner)" if board.winners[task.name] == row.label else ""
    return row.label + won, seeds, format_interval(score.interval), difference, f"{_percent(score.truncated_frac)} %"


def _failures_sheet(board: Leaderboard) -> Sheet:
    header = ("method", "seeds", "score")
    evaluated = [(row.label, _join(row.seeds), "not evaluated") for row in board.rows]
    return Sheet("runs", header, (*evaluated, *(_failure_cells(run, 3) for run in board.failed)), "Nothing to compare.")


def _failure_cells(run: FailedRun, columns: int) -> tuple[str, ...]:
    text = f"failed: {run.reason}"
    return run.label, str(run.seed), text, *[NOTHING] * (columns - 3)


def _cost_sheet(board: Leaderboard) -> Sheet:
    header = (
        *("method", "student tokens", "teacher tokens", "scored tokens"),
        *("rollout s", "scoring s", "update s", "eval s", "peak MiB"),
    )
    return Sheet("cost", header, tuple((row.label, *_cost_cells(row.cost)) for row in board.rows), "", names=1)


def _cost_cells(cost: Cost) -> list[str]:
    tokens = [f"{count:,.0f}" for count in (cost.student_tokens, cost.teacher_tokens, cost.scored_tokens)]
    seconds = [f"{time:.1f}" for time in (cost.rollout_s, cost.scoring_s, cost.update_s, cost.evaluation_s)]
    return [*tokens, *seconds, f"{cost.peak_memory_bytes / 2**20:,.0f}"]


def _join(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def render_markdown(board: Leaderboard) -> str:
    """The content of leaderboard.md."""
    parts = [describe(board)]
    for sheet in build_sheets(board):
        parts.append(f"### {_escape(sheet.title)}")
        aligned = ["---" if column < sheet.names else "---:" for column in range(len(sheet.header))]
        parts.append("\n".join(_markdown_row(cells) for cells in (sheet.header, aligned, *sheet.rows)))
        if sheet.note:
            parts.append(sheet.note)
    return "\n\n".join([*parts, *footnotes(board)]) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escape(cell) for cell in cells)} |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def write_leaderboard(folder: Path, board: Leaderboard) -> None:
    """Writes leaderboard.md and leaderboard.json into `folder`, each whole or not at all."""
    try:
        write_text(folder / "leaderboard.md", render_markdown(board))
        write_json(folder / "leaderboard.json", leaderboard_to_dict(board))
    except OSError as error:
        raise UserError(
            f"The leaderboard cannot be written to {folder} ({error.strerror}); make it writable."
        ) from error


def print_leaderboard(board: Leaderboard, console: Console | None = None) -> None:
    """The tables in the terminal; without colours and 100 columns wide where the output is not one."""
    console = console or Console()
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    console.print(Text(describe(board)))
    for sheet in build_sheets(board):
        table = Table(title=Text(sheet.title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for number, name in enumerate(sheet.header):
            left = number < sheet.names
            table.add_column(
                Text(name), justify="left" if left else "right", overflow="fold", style="bold" if not number else ""
            )
        for cells in sheet.rows:
            table.add_row(*map(_terminal_cell, cells))
        console.print(table)
        if sheet.note:
            console.print(Text(sheet.note))
    for line in footnotes(board):
        console.print(Text(line, style="dim"))


def _terminal_cell(cell: str) -> Text:
    return Text(cell, style="red", justify="left") if cell.startswith("failed: ") else Text(cell)
