"""The README says what the committed files say."""

import re
import sys

import pytest

from harness.files import ROOT
from harness.models.sizes import model_size
from harness.plan import main as plan_command
from harness.results.embed import BLOCK, embed, main

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_those_of_the_results() -> None:
    assert len(BLOCK.findall(README)) >= 3
    assert embed(README, ROOT) == README


@pytest.mark.parametrize("name", ["statistics.md", "findings.md", "engines.md", "testing.md"])
def test_figures_of_the_documents_are_those_of_the_results(name: str) -> None:
    document = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert BLOCK.search(document) and embed(document, ROOT) == document


def test_embedding_replaces_and_keeps(tmp_path) -> None:
    (tmp_path / "t.md").write_text("new\n")
    text = "a\n<!-- begin t.md -->\nold\n<!-- end -->\nb\n"
    assert embed(text, tmp_path) == "a\n<!-- begin t.md -->\nnew\n<!-- end -->\nb\n"


def test_one_section_is_taken(tmp_path) -> None:
    (tmp_path / "t.md").write_text("top\n\n### first\n\none\n\n### second\n\ntwo\n")
    text = "<!-- begin t.md#first -->\n<!-- end -->\n"
    assert embed(text, tmp_path) == "<!-- begin t.md#first -->\none\n<!-- end -->\n"
    with pytest.raises(KeyError, match="no heading 'third'; it has first, second"):
        embed("<!-- begin t.md#third -->\n<!-- end -->\n", tmp_path)


def test_an_old_table_is_noticed(tmp_path, capsys) -> None:
    document = tmp_path / "doc.md"
    document.write_text("<!-- begin LICENSE -->\nold\n<!-- end -->\n")
    assert main(["--check", str(document)]) == 1
    assert "out of date" in capsys.readouterr().err
    assert main([str(document)]) == 0
    assert main(["--check", str(document)]) == 0


def test_the_methods_of_the_default_comparison_are_explained() -> None:
    for name in ("opd", "eopd", "reopold", "reopold_2stage", "tropd"):
        assert f"| `{name}` |" in README, name


def test_sizes_of_the_tiny_models_are_theirs() -> None:
    for name in ("student", "teacher"):
        size = model_size(f"harness/tiny/checkpoints/{name}")
        assert size is not None and f"{size.parameters:,}-parameter {name}" in README


def test_files_that_it_links_to_exist() -> None:
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("name", ["README.md", "docs/scale.md"])
def test_plans_are_what_the_command_says(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every `$ python -m harness.plan …` of the document, run again."""
    text = (ROOT / name).read_text(encoding="utf-8")
    shown = re.findall(r"^\$ python -m harness\.plan (.*)\n((?:(?!\$ |```).*\n)*)", text, flags=re.MULTILINE)
    assert len(shown) >= 3
    for arguments, output in shown:
        monkeypatch.setattr(sys, "argv", ["harness.plan", *arguments.split()])
        with pytest.raises(SystemExit) as ended:
            plan_command()
        assert ended.value.code == 0
        assert capsys.readouterr().out == output, arguments
