"""`python -m harness.methods`: the list of methods as a markdown table, made from their docstrings.

The docstring of a method begins with a line `<name>: <first sentence>.`, then a paragraph that names its source.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from harness.config.methods import find_methods
from harness.console.commands import Parser, exit_code_of
from harness.errors import UserError
from harness.results.markdown import table
from harness.types import Method


@dataclass(frozen=True)
class Entry:
    """One row of the list."""

    name: str  # of the file in baselines/, and of the value of `method=`
    sentence: str  # the docstring's first paragraph
    source: str  # its second paragraph


def entry_of(name: str, method: type[Method]) -> Entry:
    """Reads a method's docstring; UserError says what it lacks."""
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", inspect.getdoc(method) or "")]
    if len(paragraphs) < 2 or not paragraphs[0].endswith("."):
        raise UserError(
            f"baselines/{name}.py: the docstring of {method.__name__} needs a first sentence and a paragraph with its source."
        )
    return Entry(name, paragraphs[0], re.sub(r"[.:]$", "", paragraphs[1]))


def method_table(methods: dict[str, type[Method]] | None = None) -> str:
    """The markdown table, one row per method, by name."""
    entries = [entry_of(name, method) for name, method in (methods or find_methods()).items()]
    rows = [[f"`{e.name}`", e.sentence, e.source] for e in entries]
    return table(["`method=`", "what it does", "source"], rows) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""

    def command() -> int:
        Parser("methods", __doc__).parse_args(arguments)
        print(method_table(), end="")
        return 0

    return exit_code_of(command)


if __name__ == "__main__":
    sys.exit(main())
