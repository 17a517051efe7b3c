"""The terminal that tables are printed on."""

from __future__ import annotations

from rich.console import Console

PLAIN_WIDTH = 100  # columns where the output is not a terminal


def open_console(console: Console | None = None, width: int = PLAIN_WIDTH) -> Console:
    """`console`, or standard output, with `width` columns where it is no terminal."""
    console = console or Console()
    if not console.is_terminal:
        console.width = width
    return console
