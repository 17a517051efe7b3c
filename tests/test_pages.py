"""The pages are true where a file or a command can say so: tables, plans, names, links; and none is
too long or wide.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import harness
from harness.files import ROOT
from harness.plan import main as plan_command
from harness.results.embed import BLOCK, embed
from tests.test_structure import ROOMS

DOCS = sorted((ROOT / "docs").glob("*.md"))
HOW_TO = sorted((ROOT / "docs" / "how_to").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS, *HOW_TO]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
PLANS = re.compile(r"^\$ python -m harness\.plan (.*)\n((?:(?!\$ |```).*\n)*)", re.MULTILINE)
LONGEST_README = 11_000  # bytes
WIDEST = 120  # characters of a line of prose


def anchors(text: str) -> set[str]:
    """What GitHub makes of a page's headings: lower case, punctuation dropped, spaces to hyphens."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def prose(text: str) -> list[str]:
    """A page's lines without code, tables and what is embedded."""
    text = BLOCK.sub("", text)
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line for line in text.splitlines() if not line.startswith(("|", "    "))]


@pytest.mark.parametrize("name", TEXTS)
def test_links_resolve(name: str) -> None:
    """Files exist beside the page; headings exist in the file."""
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", TEXTS[name]):
        path, _, heading = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), target
        if heading:
            assert heading in anchors(file.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("name", TEXTS)
def test_embedded_tables_are_those_of_the_results(name: str) -> None:
    assert embed(TEXTS[name], ROOT) == TEXTS[name], f"run python -m harness.results.embed {name}"


def test_tables_are_embedded_where_they_are_expected() -> None:
    """A block that lost its marks would go unnoticed; the README has one table and no more."""
    counts = {name: count for name, text in TEXTS.items() if (count := len(BLOCK.findall(text)))}
    assert counts.pop("README.md") == 1
    expected = {"tiny_models", "paper_tables", "findings", "statistics", "engines"}
    assert {f"docs/{name}.md" for name in expected} <= set(counts)


def test_what_the_default_tables_say_is_in_them() -> None:
    """Every figure of the page's reading stands in a table above it."""
    tables, reading = TEXTS["docs/tiny_models.md"].split("## What these tables say")
    figures = re.findall(r"\d+\.\d+", reading)
    assert len(figures) >= 8
    assert not [figure for figure in figures if figure not in tables]


@pytest.mark.parametrize(
    ("row", "table"),
    [
        ("of each seed", "teacher_texts/own"),
        ("one draw for all", "teacher_texts/shared"),
        ("seeds 0 to 2 of that draw, as was published", "tiny_cpu_engines/hf"),
    ],
)
def test_what_is_said_of_teacher_texts_stands_in_their_tables(row: str, table: str) -> None:
    (cells,) = re.findall(rf"^\| {row} \| (.*) \|$", TEXTS["docs/statistics.md"], re.MULTILINE)
    leaderboard = (ROOT / "results" / table / "leaderboard.md").read_text(encoding="utf-8")
    (scores,) = re.findall(
        r"^\| tropd[^|]* \| 0, 1[^|]* \| (.* \| .* \| [^|]*\]) \| [^|]* \|$", leaderboard, re.MULTILINE
    )
    assert cells == scores


def test_plans_are_what_the_command_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Every `$ python -m harness.plan …` of any page, run again."""
    shown = [plan for text in TEXTS.values() for plan in PLANS.findall(text)]
    assert len(shown) >= 5
    for arguments, output in shown:
        assert plan_command(arguments.split()) == 0
        assert capsys.readouterr().out == output, arguments


@pytest.mark.parametrize("name", TEXTS)
def test_prose_is_at_most_120_wide(name: str) -> None:
    assert not [line for line in prose(TEXTS[name]) if len(line) > WIDEST]


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= LONGEST_README


def test_the_index_lists_every_page() -> None:
    listed = re.findall(r"^\| \[([\w.]+)\]\(\1\) \|", TEXTS["docs/README.md"], re.MULTILINE)
    assert sorted(listed) == [page.name for page in DOCS if page.name != "README.md"]
    assert sorted(re.findall(r"\(how_to/([\w.]+)\)", TEXTS["docs/README.md"])) == [page.name for page in HOW_TO]


def test_the_rooms_are_drawn_in_their_order() -> None:
    """CONTRIBUTING's drawing, from the bottom up, is the list that imports are held to."""
    (drawing,) = re.findall(r"^doors .*?\n  \|\n(.*?)\n  \|\nbaselines ", TEXTS["CONTRIBUTING.md"], re.M | re.S)
    assert [line.split()[0] for line in drawing.splitlines()][::-1] == list(ROOMS)


def test_every_measuring_script_is_listed() -> None:
    listed = re.findall(r"^\| `(\w+\.py)` \|", TEXTS["CONTRIBUTING.md"], re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "tests" / "measure").glob("*.py"))


def test_one_version() -> None:
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1] == harness.__version__
    assert re.search(r"^## (\S+)", TEXTS["CHANGELOG.md"], re.MULTILINE)[1] == harness.__version__
    assert f"version = {{{harness.__version__}}}" in TEXTS["README.md"]
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda path: str(path.relative_to(ROOT)))
def test_names_in_configurations_exist(path: Path) -> None:
    """`harness.room.module.Class` in a comment is where that class is defined, not where it once was."""
    for dotted in re.findall(r"\bharness(?:\.[a-z_]+)+\.[A-Z]\w+", path.read_text(encoding="utf-8")):
        module, _, name = dotted.rpartition(".")
        tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}, dotted
