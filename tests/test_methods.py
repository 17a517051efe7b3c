"""The list of methods is generated from the docstrings."""

import inspect
from dataclasses import dataclass

import pytest

from harness.config.methods import find_methods
from harness.errors import UserError
from harness.files import ROOT
from harness.methods import entry_of, main, method_table
from harness.types import Method


@dataclass(frozen=True)
class Example(Method):
    """Example: one sentence
    over two lines.

    Somebody, arXiv 1234.56789, Eq. 1 | 2:

        L = 0
    """


@dataclass(frozen=True)
class Undocumented(Method):
    """Only a sentence."""


def test_a_row() -> None:
    assert method_table({"example": Example}).splitlines()[2] == (
        "| `example` | Example: one sentence over two lines. | Somebody, arXiv 1234.56789, Eq. 1 \\| 2 |"
    )


def test_a_docstring_without_a_source_is_refused() -> None:
    with pytest.raises(UserError, match=r"baselines/x\.py"):
        entry_of("x", Undocumented)


def test_every_method_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == sorted(find_methods())
    assert len({line.split(" | ")[1] for line in lines[2:]}) == len(find_methods())  # no two describe themselves alike


@pytest.mark.parametrize("name", sorted(find_methods()))
def test_docstrings_hold_name_source_and_equation(name: str) -> None:
    """`Name: sentence.`, a source, an indented equation, and what was read into or changed from the source."""
    method = find_methods()[name]
    documentation = inspect.cleandoc(method.__doc__ or "")
    entry = entry_of(name, method)
    assert ": " in entry.sentence
    assert any(word in entry.source for word in ("arXiv", "Thinking Machines", "ours")), entry.source
    assert "\n    " in documentation, "no equation"


def test_the_committed_list_is_current(capsys) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out.strip()
    assert printed in (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
