"""The leaderboard on a terminal, from the same cells as everywhere."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.results.leaderboard import Leaderboard
from harness.results.render import build_sheets, describe, footnotes
from harness.results.terminal import open_console, shown


def print_leaderboard(board: Leaderboard, console: Console | None = None) -> None:
    """The tables in the terminal; without colours and 100 columns wide where the output is not one."""
    console = open_console(console)
    console.print(shown(f"{describe(board)} Made by `{board.command}`."))
    for sheet in build_sheets(board):
        table = Table(
            title=shown(sheet.title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
        )
        for number, name in enumerate(sheet.header):
            left = number < sheet.names
            numbers = [row[number] for row in sheet.rows if not row[number].startswith("failed: ")]
            table.add_column(
                shown(name),
                justify="left" if left else "right",
                overflow="fold",
                style="bold" if not number else "",
                min_width=None if left else max(map(len, numbers), default=0),  # an interval stays on its line
            )
        for cells in sheet.rows:
            table.add_row(*map(_terminal_cell, cells))
        console.print(table)
        if sheet.note:
            console.print(shown(sheet.note))
        if sheet.key:
            console.print(shown(sheet.key, style="dim"))
    for line in footnotes(board):
        console.print(shown(line, style="dim"))


def _terminal_cell(cell: str) -> Text:
    return shown(cell, style="red", justify="left") if cell.startswith("failed: ") else shown(cell)
