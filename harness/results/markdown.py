"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

RULES = {"l": "---", "r": "---:"}


def table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str = "l") -> str:
    """A table, without a line feed at its end.

    Args:
        header, rows: cells; a vertical bar in one is escaped.
        align: a letter for each column, l or r; the last one stands for all columns after it.
    """
    letters = align + align[-1] * (len(header) - len(align))
    ruler = [RULES[letter] for letter in letters[: len(header)]]
    return "\n".join(map(_line, [header, ruler, *rows]))


def escape(text: str) -> str:
    """A text that is no end of a cell."""
    return text.replace("|", "\\|")


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {escape(cell)} |" if cell else " |" for cell in cells)
