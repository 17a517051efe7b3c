"""The list of methods and the fidelity table are generated from the docstrings."""

import copy
import inspect
import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from harness.config.methods import find_methods
from harness.errors import UserError
from harness.files import ROOT
from harness.methods import entry_of, fidelity_table, main, method_table
from harness.types import Method, TokenBatch, TokenSignal


@dataclass(frozen=True)
class Example(Method):
    """Example: one sentence over two lines.

    Somebody, arXiv 1234.56789, Eq. 1 | 2:

        L = 0

    Other code: somebody's, with k | 2.

    Deviations: one, as in baselines/opd.py.
    """


@dataclass(frozen=True)
class OfOurs(Method):
    """Ours: a sentence.

    A row of ours.
    """


@dataclass(frozen=True)
class Twice(Method):
    """Twice: a sentence.

    A row of ours.

    Readings: one.

    Readings: two.
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


def test_a_row_of_the_fidelity_table() -> None:
    """Parts in the order of the columns, a dash for the one that the docstring lacks; no row without deviations."""
    table = fidelity_table({"example": Example, "of_ours": OfOurs})
    assert table.splitlines()[2:] == [
        "| `example` | Somebody, arXiv 1234.56789, Eq. 1 \\| 2 | somebody's, with k \\| 2. | – | one, as in `opd`. |"
    ]


def test_a_part_stands_in_one_paragraph() -> None:
    with pytest.raises(UserError, match=r"baselines/x\.py: its docstring has 2 paragraphs `Readings:`"):
        entry_of("x", Twice)


def test_every_method_has_a_row() -> None:
    lines = method_table(find_methods()).splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == sorted(find_methods())
    assert len({line.split(" | ")[1] for line in lines[2:]}) == len(find_methods())  # no two describe themselves alike


@pytest.mark.parametrize("name", sorted(find_methods()))
def test_docstrings_hold_name_source_and_equation(name: str) -> None:
    """`Name: sentence.`, a source, an indented equation, and where a paper is the source, what was changed from it."""
    method = find_methods()[name]
    documentation = inspect.cleandoc(method.__doc__ or "")
    entry = entry_of(name, method)
    assert ": " in entry.sentence
    assert any(word in entry.source for word in ("arXiv", "Thinking Machines", "ours")), entry.source
    assert "\n    " in documentation, "no equation"
    assert bool(entry.deviations) != (" of ours" in entry.source), "a paper's method states its deviations"
    assert not re.search(r"(?<!\n\n)\b(Other code|Readings?|Deviations?):", documentation), "each part is a paragraph"


@pytest.mark.parametrize("path", sorted((ROOT / "baselines").glob("*.py")), ids=lambda path: path.stem)
def test_lines_of_methods_are_at_most_120_wide(path: Path) -> None:
    assert not [line for line in path.read_text(encoding="utf-8").splitlines() if len(line) > 120]


def test_the_committed_tables_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out.strip()
    assert printed in (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")


def test_an_attribute_that_a_record_lacks_is_answered_with_those_it_has() -> None:
    """A method's author guesses names; copies and pickles still work."""
    one = torch.ones(1, 1)
    batch = TokenBatch(one.long(), one.bool(), ~one.bool(), one, one)
    with pytest.raises(AttributeError, match="TokenBatch has no 'mask'; it has labels, on_policy_mask, prefix_mask, "):
        batch.mask  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match="TokenSignal has no 'logits'; it has logprobs, topk_ids, "):
        TokenSignal(one).logits  # type: ignore[attr-defined]  # noqa: B018
    assert torch.equal(pickle.loads(pickle.dumps(copy.deepcopy(batch))).labels, batch.labels)
