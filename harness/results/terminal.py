"""The terminal that tables are printed on."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from harness.results.escape import visible

PLAIN_WIDTH = 100  # columns where the output is not a terminal


def open_console(console: Console | None = None, width: int = PLAIN_WIDTH) -> Console:
    """`console`, or standard output, with `width` columns where it is no terminal."""
    console = console or Console()
    if not console.is_terminal:
        console.width = width
    return console


def shown(text: str, **options: Any) -> Text:
    """A text for a table, with nothing in it that moves the terminal; `options` of rich's Text."""
    return Text(visible(text), **options)
