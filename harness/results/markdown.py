"""Tables as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from harness.results.escape import Markdown, markdown

RULES = {"l": "---", "r": "---:"}


def table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str = "l") -> str:
    """A table, without a line feed at its end.

    Args:
        header, rows: cells; texts, which are escaped, or Markdown.
        align: a letter for each column, l or r; the last one stands for all columns after it.
    """
    letters = align + align[-1] * (len(header) - len(align))
    ruler = [Markdown(RULES[letter]) for letter in letters[: len(header)]]
    return "\n".join(map(_line, [header, ruler, *rows]))


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {_cell(cell)} |" if cell else " |" for cell in cells)


def _cell(cell: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", cell) if isinstance(cell, Markdown) else markdown(cell)
