"""Several decodings of a task: columns, order, verdicts and turned orders, by hand.

The records have the same difference on each of 8 problems and 3 seeds, so that no variance can be estimated. Half of
the interval is then Clopper and Pearson's upper end for 0 of 8, 1 - 0.025^(1/8) = 0.369 (harness.results.statistics):
differences of 50 and 100 points are resolved and one of 25 points is not, where there is one pair.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.compare import main as compare
from harness.errors import UserError
from harness.findings import main as findings
from harness.regime_map import main as regime_map
from harness.results.collect import load_records, select_evaluations
from harness.results.columns import average_columns
from harness.results.export import CSV_COLUMNS, render_csv, render_latex
from harness.results.leaderboard import Leaderboard, build_leaderboard, leaderboard_to_dict
from harness.results.orders import Turn
from harness.results.publish import publish, rebuild_leaderboard
from harness.results.render import build_sheets, render_markdown
from harness.results.sides import hold_against, pair_up
from harness.results.verdicts import headlines, turned_orders, turns_sentence, verdict_sentence
from harness.run import scored_protocols

from .synthetic import Solved, decoded, decoded_runs, run, write_metrics, write_runs


def board(solved: Mapping[str, Solved], seeds: int = 3) -> Leaderboard:
    return build_leaderboard(decoded_runs(solved, seeds), "made")


TURNED = {"opd": {"greedy": 0, "paper": 2, "sampled": 2}, "tropd": {"greedy": 1, "paper": 3, "sampled": 0}}


def test_the_verdict_of_each_decoding() -> None:
    """Greedily tropd solves all of 8 and opd none: +100. By `paper` it is 3/4 - 2/4 = +25, sampled 0 - 2/4 = -50."""
    assert verdict_sentence(board(TURNED), "arithmetic") == (
        "greedy: tropd wins (+100.0 points over opd, resolved); "
        "paper: no winner (tropd leads, +25.0 points over opd, not resolved); "
        "sampled: opd wins (+50.0 points over tropd, resolved)"
    )
    assert board(TURNED).winners == {
        "arithmetic@greedy": "tropd",
        "arithmetic@paper": None,
        "arithmetic@sampled": "opd",
    }


def test_one_plain_sentence_for_each_decoding() -> None:
    """The same numbers; half of the interval is Clopper and Pearson's 36.9 points at 8 problems without a variance."""
    found = {headline.title: (headline.wins, headline.text) for headline in headlines(board(TURNED))}
    assert found == {
        "arithmetic, greedy": (
            True,
            "tropd wins: it scores 100.0 %, 100.0 points more than opd [63.1, 100.0], and its lead over every other "
            "method is resolved.",
        ),
        "arithmetic, paper": (
            False,
            "No winner: tropd leads with 75.0 %, 25.0 points more than opd [-11.9, 61.9], but it cannot be told from "
            "opd.",
        ),
        "arithmetic, sampled": (
            True,
            "opd wins: it scores 50.0 %, 50.0 points more than tropd [13.1, 86.9], and its lead over every other "
            "method is resolved.",
        ),
    }


def test_the_sentence_where_there_is_little_to_say() -> None:
    one = headlines(board(TURNED, seeds=1))[0].text
    assert one.startswith("No verdict from one seed: tropd leads with 100.0 %, 100.0 points more than opd [")
    assert headlines(board({"opd": {"": 2}}))[0].text == "Nothing to compare: opd alone has a score."
    assert headlines(build_leaderboard([run("opd", 0)], "made")) == []
    whole = build_leaderboard([*decoded_runs(TURNED), run("eopd", 0, status="failed", reason="x")], "made")
    assert headlines(whole)[0].text.endswith("[63.1, 100.0], but eopd has no score.")  # greedily tropd beats opd
    many = {name: {"": 2} for name in ("opd", "a", "b", "c", "d", "e")}
    assert headlines(board(many))[0].text.endswith("it cannot be told from b, c, d and 2 others.")


def test_of_several_tasks_the_average_speaks() -> None:
    tasks = [replace(decoded("greedy", solved), task=name) for name, solved in (("a", 0), ("b", 1))]
    records = [run(method, seed, evaluations=tuple(tasks)) for method in ("opd", "tropd") for seed in (0, 1)]
    assert [headline.column for headline in headlines(build_leaderboard(records, "made"))] == ["average@greedy"]


def test_one_seed_has_no_winner() -> None:
    alone = board(TURNED, seeds=1)
    assert verdict_sentence(alone, "arithmetic").startswith("greedy: no winner, one seed (tropd leads); ")
    assert {order.turn for order in turned_orders(alone, "arithmetic")} == {Turn.NEITHER}


def test_one_decoding_has_a_verdict_without_its_name() -> None:
    plain = board({"opd": {"": 0}, "tropd": {"": 3}})
    assert verdict_sentence(plain, "arithmetic") == "tropd wins (+75.0 points over opd, resolved)"
    assert turns_sentence(plain, "arithmetic") == "" and plain.order_by == "" and plain.decodings == []


@pytest.mark.parametrize(
    "paper,sampled,turn,said",
    [  # solved of 4 by tropd, where opd solves 2: a difference of ±50 is resolved, of ±25 is not
        (4, 0, Turn.RESOLVED, "under sampled (resolved), below under paper (resolved), resolved on both sides"),
        (4, 1, Turn.ONE_SIDE, "under sampled (not resolved), below under paper (resolved), resolved on one side alone"),
        (3, 0, Turn.ONE_SIDE, "under sampled (resolved), below under paper (not resolved), resolved on one side alone"),
        (3, 1, Turn.NEITHER, "opd and tropd, resolved on neither side"),
    ],
)
def test_an_order_that_turns_round(paper: int, sampled: int, turn: Turn, said: str) -> None:
    made = board({"opd": {"paper": 2, "sampled": 2}, "tropd": {"paper": paper, "sampled": sampled}})
    (order,) = turned_orders(made, "arithmetic")
    assert (order.a, order.b, order.turn) == ("opd", "tropd", turn)
    start = "The order turns round between decodings: " + ("" if turn is Turn.NEITHER else "opd above tropd ")
    assert turns_sentence(made, "arithmetic") == f"{start}{said}."


@pytest.mark.parametrize("paper,sampled", [(4, 3), (2, 1), (2, 2)])
def test_an_order_that_does_not(paper: int, sampled: int) -> None:
    """Above in both, equal in one, equal in both."""
    made = board({"opd": {"paper": 2, "sampled": 2}, "tropd": {"paper": paper, "sampled": sampled}})
    assert turned_orders(made, "arithmetic") == []
    assert turns_sentence(made, "arithmetic") == "No two methods change their order between decodings."


def test_a_turn_is_judged_after_holm() -> None:
    """Four methods, six pairs a column. t = difference / (0.369 / 2.365): for 50 points 3.20 with 7 degrees of
    freedom, p = 0.015, which stands alone at 5 % and not times 6.
    """
    middle = {"paper": 2, "sampled": 2}
    others = {"tropd": {"paper": 4, "sampled": 0}, "eopd": {"paper": 3, "sampled": 1}}
    made = board({"opd": middle, "reopold": middle, **others})
    pairs = {(c.task, c.a, c.b): c for c in made.comparisons}
    one = pairs["arithmetic@paper", "opd", "tropd"]
    assert one.difference.p_value == pytest.approx(0.015, abs=5e-4)
    assert one.adjusted_p_value == pytest.approx(6 * one.difference.p_value)
    assert {order.turn for order in turned_orders(made, "arithmetic")} == {Turn.NEITHER}
    pairs_said = "eopd and opd, eopd and reopold, eopd and tropd, opd and tropd, reopold and tropd"
    assert turns_sentence(made, "arithmetic").endswith(f": {pairs_said}, resolved on neither side.")


def test_rows_are_ordered_by_the_paper_unless_said_otherwise() -> None:
    made = board(TURNED)
    assert (made.order_by, [row.label for row in made.rows]) == ("paper", ["tropd", "opd"])
    by = build_leaderboard(decoded_runs(TURNED), "made", order_by="sampled")
    assert (by.order_by, [row.label for row in by.rows]) == ("sampled", ["opd", "tropd"])
    without = {name: {k: v for k, v in under.items() if k != "paper"} for name, under in TURNED.items()}
    assert board(without).order_by == "greedy"


def test_the_table_has_a_column_for_each() -> None:
    text = render_markdown(board(TURNED))
    assert "greedy × 1, protocol greedy-p; paper × 4, protocol paper-pr" in text and "ordered by paper" in text
    assert "| method | seeds | greedy | paper | sampled | ranks |" in text
    assert "| tropd (wins: greedy) | 0, 1, 2 | 100.0 [63.1, 100.0] |" in text and "| 1 / 1–2 / 2 |" in text
    minus = next(sheet for sheet in build_sheets(board(TURNED)) if sheet.title == "arithmetic, minus opd")
    row = next(row for row in minus.rows if row[0] == "tropd")
    assert [cell.split()[0] for cell in row[1:]] == ["+100.0", "+25.0", "-50.0"]
    assert "greedy: the most likely token, one sample; paper: temperature 0.6, top-p 0.95" in text


def test_a_method_that_lacks_a_decoding_wins_nothing_there() -> None:
    made = board({"opd": {"paper": 0, "sampled": 0}, "tropd": {"paper": 4}})
    assert made.winners == {"arithmetic@paper": "tropd", "arithmetic@sampled": None}
    assert "| tropd (wins: paper) | 0, 1, 2 | 100.0 [63.1, 100.0] | – | 1 / – |" in render_markdown(made)


def test_seeds_that_are_missing_are_said() -> None:
    """tropd was run on two of three seeds, and by the paper's decoding scored on one of these."""
    one, two = ({"paper": 4, "sampled": 0}, {"sampled": 0})
    records = decoded_runs({"opd": {"paper": 2, "sampled": 2}})
    for seed, under in enumerate((one, two)):
        records.append(run("tropd", seed, evaluations=tuple(decoded(name, n) for name, n in under.items())))
    text = render_markdown(build_leaderboard(records, "made"))
    assert "| tropd (wins: sampled) |" not in text
    assert "| 0, 1 (2 of 3) | 100.0 [63.1, 100.0]† on seed 0 | 0.0 [0.0, 36.9] |" in text


def test_exports_name_the_decoding() -> None:
    made = board(TURNED)
    rows = list(csv.DictReader(io.StringIO(render_csv(made))))
    found = {(r["method"], r["decoding"]): r for r in rows}
    assert float(found["tropd", "sampled"]["minus_baseline"]) == -0.5
    assert found["tropd", "greedy"]["task"] == "arithmetic" and found["tropd", "greedy"]["samples"] == "1"
    content = leaderboard_to_dict(made)
    assert content["order_by"] == "paper"
    assert [task["decoding"] for task in content["tasks"]] == ["greedy", "paper", "sampled"]
    text = render_latex(made)
    assert r"Method & arithmetic, greedy & arithmetic, paper & arithmetic, sampled & Rank \\" in text
    assert "rank: interval of ranks under paper" in text and text.count("& 1--2 ") == 2
    assert r"tropd minus opd & +100.0 [63.1, 100.0] & +25.0 [-11.9, 61.9] & -50.0 [-86.9, -13.1] & -- \\" in text


def test_a_table_without_decodings_has_no_word_of_them() -> None:
    plain = board({"opd": {"": 0}, "tropd": {"": 3}})
    assert tuple(csv.DictReader(io.StringIO(render_csv(plain))).fieldnames or ()) == CSV_COLUMNS
    assert "decoding" not in str(leaderboard_to_dict(plain)) and "order_by" not in leaderboard_to_dict(plain)
    assert "ecoding" not in render_markdown(plain)


def test_averages_are_under_one_decoding_each() -> None:
    """A task with one column counts under every decoding; without a column of the name there is no average."""
    three = ["a@greedy", "a@paper", "b@greedy", "b@paper", "c"]
    assert average_columns(three) == {
        "average@greedy": ["a@greedy", "b@greedy", "c"],
        "average@paper": ["a@paper", "b@paper", "c"],
    }
    assert average_columns(["a@greedy", "a@paper", "b@greedy", "b@sampled"]) == {
        "average@greedy": ["a@greedy", "b@greedy"]
    }
    assert average_columns(["a", "b"]) == {"average": ["a", "b"]}
    assert average_columns(["a@greedy", "a@paper"]) == {} == average_columns(["a"])


def test_the_average_has_a_verdict_under_each() -> None:
    """Of two tasks, on both of which tropd is 100 points above greedily and 50 below at temperature 1."""
    records = [
        replace(r, evaluations=(*r.evaluations, *(replace(e, task="b") for e in r.evaluations)))
        for r in decoded_runs({"opd": {"greedy": 0, "sampled": 2}, "tropd": {"greedy": 1, "sampled": 0}})
    ]
    made = build_leaderboard(records, "made")
    sheets = {sheet.title: sheet for sheet in build_sheets(made)}
    assert list(sheets)[:3] == ["all tasks, greedy", "all tasks, sampled", "arithmetic"]
    assert sheets["all tasks, greedy"].header[1:4] == ("arithmetic, greedy", "b, greedy", "average, greedy")
    assert sheets["all tasks, sampled"].note.endswith(
        "Under each decoding: greedy: tropd wins (+100.0 points over opd, resolved); sampled: opd wins (+50.0 points "
        "over tropd, resolved). The order turns round between decodings: opd above tropd under sampled (resolved), "
        "below under greedy (resolved), resolved on both sides."
    )
    rows = list(csv.DictReader(io.StringIO(render_csv(made))))
    assert {r["decoding"] for r in rows if r["task"] == "average"} == {"greedy", "sampled"}


def test_a_protocol_has_one_name(tmp_path: Path) -> None:
    """Rows of before a decoding had a name stand in its column; published and read again they have it."""
    old = run("opd", 0, evaluations=(decoded("", 2, protocol="p"),))
    new = run("tropd", 0, evaluations=(decoded("sampled", 3, protocol="p"), decoded("greedy", 1, protocol="q")))
    selected = select_evaluations([old, new])
    assert {column: sorted(label for label, _ in found) for column, found in selected.items()} == {
        "arithmetic@greedy": ["tropd"],
        "arithmetic@sampled": ["opd", "tropd"],
    }
    assert list(select_evaluations([old, new], {"arithmetic": "p"})) == ["arithmetic@sampled"]
    folder = write_runs(tmp_path / "runs", [old, new])
    publish(folder, tmp_path / "published")
    read = {(r.label, e.column) for r in load_records(tmp_path / "published") for e in r.evaluations}
    assert {("opd", "arithmetic"), ("tropd", "arithmetic@greedy"), ("tropd", "arithmetic@sampled")} == read


def test_a_published_table_keeps_its_order(tmp_path: Path) -> None:
    folder = write_runs(tmp_path / "runs", decoded_runs(TURNED))
    publish(folder, tmp_path / "published", order_by="sampled")
    text = (tmp_path / "published" / "leaderboard.md").read_text()
    assert f"`python -m harness.leaderboard {tmp_path / 'published'} --order-by sampled`" in text
    rebuild_leaderboard(folder, "made", order_by="sampled")
    assert "ordered by sampled" in (folder / "leaderboard.md").read_text()


def test_sides_pair_what_has_one_protocol() -> None:
    """An unnamed row beside a named one of the same protocol; another protocol of a name is refused as a baseline."""
    new = [run("opd", 0, evaluations=(decoded("greedy", 1, protocol="g"), decoded("sampled", 3, protocol="p")))]
    old = [run("opd", 0, evaluations=(decoded("", 2, protocol="p"),))]
    (pair,) = pair_up(old, new)
    assert (pair.task, pair.difference.estimate) == ("arithmetic@sampled", 0.25)
    assert [check.task for check in hold_against(new, old)] == ["arithmetic"]
    both = [run("opd", 0, evaluations=(decoded("greedy", 1, protocol="h"), decoded("sampled", 3, protocol="p")))]
    with pytest.raises(UserError, match="opd on arithmetic@greedy was made under another protocol"):
        hold_against(new, both)


def test_a_turn_between_two_sides_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """B minus A of one row: +100 greedily, -50 sampled, both resolved; +25 by the paper, not resolved."""
    a = decoded_runs({"opd": TURNED["opd"]})
    b = decoded_runs({"opd": TURNED["tropd"]})
    assert compare([str(write_runs(tmp_path / name, side)) for name, side in (("a", a), ("b", b))]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "arithmetic, opd: the order turns round between decodings: B above A under greedy (resolved) and paper (not "
        "resolved), below under sampled (resolved), resolved on both sides." in said
    )
    assert [said.count(number) for number in ("+100.0 [", "+25.0 [", "-50.0 [")] == [1, 1, 1]


def cell_runs(path: Path, solved: Mapping[str, Solved], rate: float = 1e-3) -> Path:
    """A folder of one cell of the regime map: two replicates with a student each."""
    records = []
    for seed in range(2):
        setting = {"name": "r", "student": f"students/{seed}/student", "teacher": "t", "learning_rate": rate}
        setting |= {"lr_schedule": "cosine", "steps": 10}
        for method, under in solved.items():
            evaluations = tuple(decoded(name, count) for name, count in under.items())
            records.append(run(method, seed, setting=setting, evaluations=evaluations))
    return write_runs(path, records)


def test_the_map_shows_decodings_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert regime_map([str(cell_runs(tmp_path / "runs", TURNED))]) == 0
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if line.startswith("| student | cosine |")).split(" | ")
    assert row[4].startswith("tropd 100.0 ") and row[4].endswith(", wins")
    assert row[5].startswith("tropd 75.0 ") and row[5].endswith("; or opd")
    assert row[6].startswith("opd 50.0 ") and ", wins" in row[6]
    assert "One method wins under every decoding in 0 of 1 cells, none under any in 0; in the other 1 " in text
    assert "turns round 1 times: 1 resolved on both sides, 0 resolved on one side alone, 0 resolved on neither" in text
    assert "- student, cosine 0.001: opd above tropd under sampled (resolved), below under greedy (resolved)" in text
    assert text.index("### student, cosine, greedy") < text.index("### student, cosine, sampled")


def test_a_map_of_one_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert regime_map([str(cell_runs(tmp_path / "runs", TURNED)), "--task", "arithmetic@sampled"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Task arithmetic, sampled. ") and "paper" not in text and "opd 50.0 " in text


def test_a_run_without_a_decoding_has_no_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lacking = {**TURNED, "opd": {"greedy": 0, "sampled": 2}}
    assert regime_map([str(cell_runs(tmp_path / "runs", lacking))]) == 2
    assert "opd seed 0 has 0 evaluations on arithmetic@paper" in capsys.readouterr().err


def test_a_claim_has_a_verdict_under_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claims = tmp_path / "claims.yaml"
    claims.write_text("- {claim: It helps., source: us, family: f, a: tropd, b: opd, expected: higher}\n")
    assert findings([str(claims), str(cell_runs(tmp_path / "runs", TURNED))]) == 0
    text = capsys.readouterr().out
    assert "| regime | schedule, rate | replicates | greedy | paper | sampled |" in text
    row = next(line for line in text.splitlines() if line.startswith("| student | cosine 0.001 |")).split(" | ")
    assert [cell.rstrip(" |").rpartition(", ")[2] for cell in row[3:]] == ["as claimed", "not resolved", "the opposite"]
    assert [cell.split()[0] for cell in row[3:]] == ["100.0", "25.0", "-50.0"]
    assert "the verdict turns round, resolved on both sides, in 1; in the other 0 " in text
    assert "| It helps (higher) | **+100.0** / +25.0 / **-50.0** |" in text


def test_claims_on_metrics_alone_are_of_no_decoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claims = tmp_path / "claims.yaml"
    entry = "claim: Smaller., source: us, family: f, a: tropd, b: opd, expected: lower, quantity: grad_norm"
    claims.write_text(f"- {{{entry}}}\n")
    folder = cell_runs(tmp_path / "runs", TURNED)
    for method, seed in itertools.product(("opd", "tropd"), (0, 1)):
        write_metrics(folder, method, seed, [{"step": 1, "grad_norm": 2.0 + seed}])
    publish(folder, tmp_path / "published")
    assert findings([str(claims), str(tmp_path / "published")]) == 0
    text = capsys.readouterr().out
    assert text.count("### Summary\n") == 1 and "greedy" not in text and "in points" not in text
    assert "| Smaller (lower) |" in text


def test_a_glance_at_several_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two cells of a regime: +100, +25, -50 points, and 0 under each decoding at a third of the rate."""
    claims = tmp_path / "claims.yaml"
    claims.write_text("- {claim: It helps., source: us, family: f, a: tropd, b: opd, expected: higher}\n")
    same = {"opd": TURNED["opd"], "tropd": TURNED["opd"]}
    folders = [cell_runs(tmp_path / "runs", TURNED), cell_runs(tmp_path / "slow", same, rate=3e-4)]
    assert findings([str(claims), *map(str, folders)]) == 0
    text = capsys.readouterr().out
    row = "+0.0 to +100.0 (**1** of 2) / +0.0 to +25.0 / -50.0 to +0.0 (**1** of 2)"
    assert f"| It helps (higher) | {row} |" in text and "and in how many of them it is resolved." in text


def test_a_table_is_of_the_columns_that_were_scored() -> None:
    """A column that nobody has is left out; of a task that was scored under other protocols alone nothing is."""
    (record,) = decoded_runs({"opd": {"greedy": 0, "sampled": 1}}, seeds=1)
    scored = {"arithmetic@greedy": "greedy-protocol", "arithmetic@sampled": "sampled-protocol"}
    assert scored_protocols({**scored, "arithmetic@paper": "paper-protocol", "aime24": "x"}, [record]) == scored
    assert scored_protocols({"arithmetic": "another"}, [record]) == {"arithmetic": "another"}
