"""Texts of strangers in a terminal, Markdown, CSV and LaTeX, worked by hand; and in a whole table."""

from __future__ import annotations

import csv
import dataclasses
import io

import pytest
from rich.console import Console

from harness.results.escape import Markdown, code, csv_cell, latex, markdown, one_line
from harness.results.export import render_csv, render_latex
from harness.results.leaderboard import build_leaderboard
from harness.results.markdown import table
from harness.results.model_card import build_card
from harness.results.printing import print_leaderboard
from harness.results.render import render_markdown

from .synthetic import run, small_comparison

NASTY = "<img src=x onerror=alert(1)>\n| a | [b](http://c) `d` \x1b[2J\x9b31m $e^f$ \u202egnp"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("reopold_2stage (t_switch=0.5), +2.1 [-2.1, 6.3]†, pass@4, 64 %", None),  # what our own tables hold stays
        ("<b>&amp;", r"\<b\>\&amp;"),
        ("a | b", r"a \| b"),
        ("two\nlines\u2028three", "two lines three"),
        ("[text](url) [text][1] [1]: url", r"[text]\(url) [text]\[1] [1]\: url"),
        ("https://a.b HTTP://c www.d", r"https\://a.b HTTP\://c www\.d"),
        ("*a* _b_ a_b `c` ~d~ $e$ \\f", r"\*a\* \_b\_ a_b \`c\` \~d\~ \$e\$ \\f"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
    ],
)
def test_markdown_says_what_the_text_says(text: str, escaped: str | None) -> None:
    assert markdown(text) == (text if escaped is None else escaped)
    assert markdown(markdown(text)) == markdown(text)


def test_markdown_of_ones_own_stays() -> None:
    assert table([Markdown("`a`"), "`b`"], [["x|y", Markdown("x|y")]]) == (
        "| `a` | \\`b\\` |\n| --- | --- |\n| x\\|y | x\\|y |"
    )


@pytest.mark.parametrize(
    ("text", "fenced"), [("a", "`a`"), ("a`b", "``a`b``"), ("`", "`` ` ``"), ("a\n\n# b", "`a # b`")]
)
def test_code_ends_where_it_ends(text: str, fenced: str) -> None:
    assert code(text) == fenced


@pytest.mark.parametrize("first", "=+-@\t\r")
def test_a_spreadsheet_computes_nothing(first: str) -> None:
    assert csv_cell(f"{first}cmd|' /C calc'!A0").startswith("'")
    assert csv_cell("tropd (beta=-1)") == "tropd (beta=-1)"


def test_latex_by_hand() -> None:
    assert latex("a_b & 5 % $x^2$ {~} #1 \\input{/etc/passwd}\n%") == (
        r"a\_b \& 5 \% \$x\^{}2\$ \{\textasciitilde{}\} \#1 \textbackslash{}input\{/etc/passwd\} \%"
    )


def test_one_line() -> None:
    assert one_line(" a\n\n b\tc\x00 ") == "a b c␀"


def test_a_table_of_nasty_names() -> None:
    """As a method, a knob, a reason, a setting, a machine, and the command."""
    knobs = {"knobs": {NASTY: NASTY}, "changed_knobs": {NASTY: NASTY}}
    sizes = {"prompts_per_step": 1, "samples_per_prompt": 1}
    setting = {"name": NASTY, "student": NASTY, "teacher": NASTY, "prompts": NASTY, **sizes}
    provenance = {"hardware": NASTY, "commit": NASTY}
    records = [run("opd", 0, [1, 2]), run(f"={NASTY}", 0, [2, 2]), run("tropd", 0, [1, 1], **knobs)]
    records.append(run("eopd", 2, status="failed", reason=NASTY))
    records = [dataclasses.replace(record, setting=setting, provenance=provenance) for record in records]
    board = build_leaderboard(records, f"python -m x {NASTY}")

    for page in (render_markdown(board), str(build_card(records[2]))):
        assert "\x1b" not in page and "\x9b" not in page and "\u202e" not in page
        prose = [
            line for line in page.split("\n## Again")[0].split("\n") if "python -m" not in line and line[:1] in "|#"
        ]
        assert not [line for line in prose if "<img" in line.replace("\\<", "") or "](" in line or "`d`" in line]
    lines = [line for line in render_markdown(board).split("\n") if line.startswith("|")]
    widths = {line.replace("\\|", "").count("|") for line in lines}
    assert widths <= {4, 7, 8, 10}  # the columns of the table, by sample and cost: no cell has become two

    rows = list(csv.reader(io.StringIO(render_csv(board))))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert not [cell for row in rows[1:] for cell in row if cell.startswith(("=", "@", "+")) or "\x1b" in cell]

    document = render_latex(board)
    assert "\x1b" not in document and all(line.startswith("%") for line in document.split("\n")[:2])
    assert document.split("\n")[2].startswith(r"\begin{tabular}")
    assert "$e" not in document.replace("\\$", "").split("tabular", 1)[1]

    sink = io.StringIO()
    print_leaderboard(board, Console(file=sink, force_terminal=True, color_system=None, width=200))
    assert "\x1b[2J" not in sink.getvalue() and "\x9b" not in sink.getvalue() and "␛[2J" in sink.getvalue()


def test_numbers_of_a_csv_stay_numbers() -> None:
    """A difference that is negative begins with a minus, and is no formula."""
    rows = csv.DictReader(io.StringIO(render_csv(build_leaderboard(small_comparison(), "c"))))
    differences = [float(row["minus_baseline"]) for row in rows if row["minus_baseline"]]
    assert min(differences) < 0
