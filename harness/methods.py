"""`python -m harness.methods`: the methods as two markdown tables, made from their docstrings.

The docstring of a method begins with a line `<name>: <first sentence>.`, then a paragraph that names its source. Three
kinds of paragraph say how true to the source it is, each at most once and each with a fixed beginning: `Other code:`
what public code other than ours does, `Readings:` what ours does where the source leaves a choice, `Deviations:` where
ours is another. `docs/methods.md` holds what is printed.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.config.methods import find_methods
from harness.console.commands import Parser, exit_code_of
from harness.errors import UserError
from harness.results.escape import Markdown
from harness.results.markdown import table
from harness.types import Method

FIDELITY = """
## Fidelity

*Other public code* is what could be read or is reported, not what was run. *Ours* is what stands where the source
leaves a choice; an *open* reading is one that the sources do not settle. Methods of our own are left out.
"""


@dataclass(frozen=True)
class Entry:
    """What a method's docstring says of it; the last three are empty where it has no such paragraph."""

    name: str  # of the file in baselines/, and of the value of `method=`
    sentence: str  # the docstring's first paragraph
    source: str  # its second paragraph
    other_code: str = ""
    readings: str = ""
    deviations: str = ""


def entry_of(name: str, method: type[Method]) -> Entry:
    """Reads a method's docstring; UserError says what it lacks."""
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", inspect.getdoc(method) or "")]
    if len(paragraphs) < 2 or not paragraphs[0].endswith("."):
        raise UserError(
            f"baselines/{name}.py: the docstring of {method.__name__} needs a first sentence and a paragraph with "
            "its source."
        )
    parts = (_part(name, paragraphs[2:], label) for label in ("Other code", "Readings", "Deviations"))
    return Entry(name, paragraphs[0], re.sub(r"[.:]$", "", paragraphs[1]), *parts)


def _part(name: str, paragraphs: list[str], label: str) -> str:
    """The paragraph that begins with `label:`, without it."""
    found = [p.removeprefix(f"{label}:").strip() for p in paragraphs if p.startswith(f"{label}:")]
    if len(found) > 1:
        raise UserError(f"baselines/{name}.py: its docstring has {len(found)} paragraphs `{label}:`; make them one.")
    return found[0] if found else ""


def method_table(methods: Mapping[str, type[Method]]) -> str:
    """What each method does: a markdown table, a row a method."""
    entries = [entry_of(name, method) for name, method in methods.items()]
    return _table(["`method=`", "what it does", "source"], [[f"`{e.name}`", e.sentence, e.source] for e in entries])


def fidelity_table(methods: Mapping[str, type[Method]]) -> str:
    """How true each method is to its source: a markdown table, a row for every method that states its deviations."""
    entries = [entry for name, method in methods.items() if (entry := entry_of(name, method)).deviations]
    return _table(
        ["`method=`", "paper", "other public code", "ours, where the paper leaves a choice", "deviations"],
        [[f"`{e.name}`", e.source, e.other_code, e.readings, e.deviations] for e in entries],
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown; an empty cell is a dash, and a file of a method becomes its row's name."""
    return table(list(map(Markdown, head)), [[_cell(text) for text in row] for row in rows]) + "\n"


def _cell(text: str) -> Markdown:
    return Markdown(re.sub(r"baselines/(\w+)\.py", r"`\1`", text) or "–")


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""

    def command() -> int:
        Parser("methods", __doc__).parse_args(arguments)
        methods = find_methods()
        print(f"{method_table(methods)}{FIDELITY}\n{fidelity_table(methods)}", end="")
        return 0

    return exit_code_of(command)


if __name__ == "__main__":
    sys.exit(main())
