"""The page as text: what it holds, what it hides, and what is escaped."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.report.__main__ import main
from harness.results.collect import load_records, publish_records
from harness.results.leaderboard import build_leaderboard
from harness.results.record import write_record
from harness.results.render import build_sheets
from tests.report.folders import NASTY, comparison, write_everything, write_rows
from tests.results.synthetic import decoded_runs, run, small_comparison, write_runs

VOID = {"meta", "link", "img", "input"}


class Outline(HTMLParser):
    """Checks that elements are properly nested, and collects ids, links and script-like things."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [str(value) for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [str(value) for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(folder: Path) -> str:
    assert main([str(folder)]) == 0
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(write_everything(tmp_path_factory.mktemp("whole"), comparison()))


def test_page_is_well_formed_and_has_every_section(whole: str) -> None:
    outline = Outline(whole)
    assert len(outline.ids) == len(set(outline.ids))
    links = [str(value)[1:] for name, value in outline.attributes if name == "href" and str(value).startswith("#")]
    assert set(links) <= set(outline.ids)
    sections = ("main", "scores", "learning", "dynamics", "problems", "credit", "cost", "configuration", "provenance")
    assert [name for name in outline.ids if name in sections] == list(sections)  # cost is further down
    assert {"svg", "table", "details"} <= set(outline.tags)


def test_page_needs_no_network_and_no_script(whole: str) -> None:
    outline = Outline(whole)
    assert not {"script", "iframe", "object", "form", "base"} & set(outline.tags)
    assert not [name for name, _ in outline.attributes if name.startswith("on")]
    for name, value in outline.attributes:
        if name in ("href", "src"):
            assert str(value).startswith(("#", "data:"))
    assert not re.search(r"@import|url\((?!#)", whole)
    assert "default-src 'none'" in whole


def test_leaderboard_is_the_leaderboards_own(whole: str) -> None:
    board = build_leaderboard(comparison(), "x")
    for sheet in build_sheets(board):
        for row in sheet.rows:
            for cell in row[1:]:
                assert f">{html.escape(cell, quote=False)}<" in html.unescape(whole).replace("&", "&amp;")


def test_decodings_stand_side_by_side(tmp_path: Path) -> None:
    """A figure for each, scores before differences; texts of each; a winner's mark keeps the colour of its method."""
    solved = {"opd": {"greedy": 0, "sampled": 2}, "tropd": {"greedy": 1, "sampled": 0}}
    page = page_of(write_everything(tmp_path, decoded_runs(solved), metrics=[]))
    titles = ("<h2>arithmetic, greedy</h2>", "<h2>arithmetic, sampled</h2>", "<table>", "<h4>Score, greedy</h4>")
    places = [page.index(title) for title in (*titles, "<h4>Score, sampled</h4>")]
    assert places == sorted(places)
    assert page.count("<h3>Minus opd</h3>") == 2  # beside the sentence of each decoding
    sentences = ("<strong>tropd wins: </strong>it scores 100.0 %", "<strong>opd wins: </strong>it scores 50.0 %")
    assert places[0] < page.index(sentences[0]) < places[1] < page.index(sentences[1])
    assert "The order turns round between decodings: opd above tropd under sampled (resolved)" in page
    assert "<h3>arithmetic, greedy</h3>" in page and "<h3>arithmetic, sampled</h3>" in page
    for mark in ("tropd (wins: greedy)", "opd (wins: sampled)"):
        assert re.search(rf'<span class="chip"[^>]*></span>{re.escape(mark)}<', page)
    assert "greedy: tropd wins (+100.0 points over opd, resolved); sampled: opd wins (+50.0 points over tropd" in page


def test_failed_runs_changed_knobs_and_provenance_are_there(whole: str) -> None:
    assert "failed: the loss is not finite at step 7" in whole
    assert "aopd (alpha=0.5)" in whole
    assert "<td>alpha</td><td>0.5</td><td>changed</td>" in whole
    assert "<td>alpha</td><td>1.0</td><td>default</td>" in whole
    for words in ("0123456789ab", "a processor", "2.13.0", "3.11.9", "optimiser.beta"):
        assert words in whole


def test_what_a_model_wrote_is_escaped_and_visible(tmp_path: Path) -> None:
    page = page_of(
        write_everything(tmp_path, small_comparison(), text=NASTY, tokens=("p", NASTY, "</span><b>"), metrics=[])
    )
    outline = Outline(page)
    assert "script" not in outline.tags
    assert "<script" not in page
    shown = "&lt;script&gt;alert(1)&lt;/script&gt; ␀␛[31m &amp; &#34;quoted&#34; ⟨U+202E⟩gnp.exe\u2028end ⟨U+D800⟩"
    assert page.count(shown) > 3
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)


def test_nasty_labels_break_neither_page_nor_figures(tmp_path: Path) -> None:
    knobs = {"knobs": {"k": "$x_1$ <i>&\x07"}, "changed_knobs": {"k": "$x_1$ <i>&\x07"}}
    write_runs(tmp_path, [run("opd", 0, [1, 2, 3])])
    record = run("tropd", 0, [3, 2, 1], **knobs)
    write_rows(tmp_path / "tropd" / "seed0" / "metrics.jsonl", [{"step": 1, "loss": 1.0, "grad_norm": 2.0}])
    write_record(tmp_path / "tropd" / "seed0" / "record.json", record)
    page = page_of(tmp_path)
    Outline(page)
    assert "<i>" not in page
    assert "tropd (k=$x_1$ &lt;i&gt;&amp;␇)" in page


def test_private_texts_stay_private(tmp_path: Path) -> None:
    page = page_of(write_everything(tmp_path, small_comparison(), private=True, metrics=[]))
    assert "The text of this set is kept private." in page
    assert "secret" not in page


def test_texts_are_those_of_the_sampled_problem(tmp_path: Path) -> None:
    page = page_of(write_everything(tmp_path, [run("opd", 0, [0, 4, 4]), run("tropd", 0, [4, 4, 4])], metrics=[]))
    problems = re.findall(r'<details class="problem">.*?</div></details>', page, flags=re.S)
    assert len(problems) == 1  # only the first problem flips
    assert "item-0" in problems[0]
    shown = re.findall(r"<pre>(.*?)</pre>", problems[0])
    assert shown == ["question 0?", "an answer by tropd", "an answer by opd"]  # by score
    assert "reference: <code>7</code>" in problems[0]
    assert "✗ not solved" in problems[0] and "✓ solved" in problems[0]
    assert "1 of 3 problems flip" in page


def test_long_texts_keep_beginning_and_end(tmp_path: Path) -> None:
    runs = [run("opd", 0, [0, 4]), run("tropd", 0, [4, 4])]
    page = page_of(write_everything(tmp_path, runs, text="a" * 900 + "b" * 1000, metrics=[]))
    end = "b" * (300 - len(" by opd")) + " by opd"  # three quarters of 1,200 characters, then a quarter
    assert f"<pre>{'a' * 900} […] {end}</pre>" in page
    assert "; 707 characters left out" in page  # 1,900 + 7 − 1,200


def test_published_folder_has_tables_and_says_what_is_missing(tmp_path: Path) -> None:
    source = write_everything(tmp_path / "runs", small_comparison(), metrics=[])
    publish_records(tmp_path / "published" / "runs.jsonl", load_records(source))
    page = page_of(tmp_path / "published")
    Outline(page)
    assert "This is a published comparison" in page
    assert 'id="problems"' in page
    assert 'id="dynamics"' not in page
    assert 'id="credit"' not in page


def test_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = write_everything(tmp_path, small_comparison()[:6], metrics=["grad_norm"])
    assert page_of(folder) == page_of(folder)


def test_unfinished_comparison_has_a_page(tmp_path: Path) -> None:
    folder = write_runs(tmp_path, [run("opd", 0, status="started", finished_at="")])
    rows = [{"step": step, "grad_norm": 1.0} for step in (1, 2)]
    path = folder / "opd" / "seed0" / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 3, "gr')
    page = page_of(folder)
    assert "No run of opd has finished: what is drawn are unfinished ones." in page
    assert 'id="problems"' not in page


def test_output_goes_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_runs(tmp_path / "runs", small_comparison()[:6])
    assert main([str(folder), f"output={tmp_path / 'a' / 'x.html'}"]) == 0
    assert main([str(folder), "--output", str(tmp_path / "y.html")]) == 0
    assert (tmp_path / "a" / "x.html").read_bytes() == (tmp_path / "y.html").read_bytes()
    assert not (folder / "report.html").exists()
    assert "x.html (0." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{folder}/nowhere"], "is not a folder"),
        (["{folder}/empty"], "holds no run"),
        (["{folder}/runs", "outptu=x"], "unknown key 'outptu'"),
        (["{folder}/runs", "x.html"], "x.html is not a folder"),
        (["{folder}/runs", "outptu=x.html"], "unknown key 'outptu'"),
        (["{folder}/runs", "output={folder}"], "is a folder"),
        (["{folder}/runs", "output={folder}/runs/opd/seed0/record.json/x"], "cannot be written"),
        (["{folder}/runs", "--protocol", "arithmetic"], "is not TASK=HASH"),
        (["{folder}/runs", "--protocol", "arithmetic=zz"], "under the protocol zz"),
        (["{folder}/runs", "output=a", "--output", "b"], "both given"),
        (["{folder}/broken"], "metrics.jsonl, line 1: "),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    write_runs(tmp_path / "runs", [run("opd", 0, [1, 2])])
    write_runs(tmp_path / "broken", [run("opd", 0, [1, 2])])
    (tmp_path / "broken" / "opd" / "seed0" / "metrics.jsonl").write_text('nonsense\n{"step": 2}\n')
    assert main([argument.format(folder=tmp_path) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.startswith("error: ")
    assert len(captured.err.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("*.html")) and not list(tmp_path.rglob("*.tmp"))
