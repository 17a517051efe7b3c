"""Rows, intervals, differences, winners, failed rows; and the command."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from harness.errors import UserError
from harness.leaderboard import main
from harness.results.export import CSV_COLUMNS, render_csv, render_latex
from harness.results.leaderboard import Leaderboard, build_leaderboard, leaderboard_to_dict
from harness.results.printing import print_leaderboard
from harness.results.publish import publish, rebuild_leaderboard
from harness.results.record import Counters, RunRecord
from harness.results.reference import published_rows
from harness.results.render import (
    build_sheets,
    format_difference,
    format_interval,
    render_markdown,
    write_leaderboard,
)
from harness.results.statistics import Difference, Interval, mean_interval, paired_difference

from .synthetic import FILES, PROVENANCE, SETTING, evaluation, run, small_comparison, write_runs

REPOSITORY = Path(__file__).parents[2]


def board_of(records: Sequence[RunRecord]) -> Leaderboard:
    return build_leaderboard(records, "python -m harness.run")


def terminal_text(board: Leaderboard) -> str:
    sink = io.StringIO()
    print_leaderboard(board, Console(file=sink))
    return sink.getvalue()


def test_order_and_numbers_of_the_rows() -> None:
    board = board_of(small_comparison())
    assert [row.label for row in board.rows] == ["student", "tropd", "eopd", "opd", "teacher"]
    rows = {row.label: row for row in board.rows}
    base = np.array([4, 3, 2, 1, 0, 2, 3, 1]) / 4
    opd = np.array([np.roll(base, -seed) for seed in range(3)])
    tropd = np.minimum(opd + 0.25, 1)
    assert rows["opd"].scores["arithmetic"].interval == mean_interval(opd)
    assert rows["opd"].scores["arithmetic"].difference is None
    assert rows["tropd"].scores["arithmetic"].interval.estimate == pytest.approx((16 + 7) / 32)
    assert rows["tropd"].scores["arithmetic"].difference == paired_difference(tropd, opd)
    assert rows["eopd"].scores["arithmetic"].difference_seeds == (0, 1)
    assert rows["eopd"].missing_seeds == (2,)
    assert rows["student"].missing_seeds == ()
    assert rows["opd"].scores["arithmetic"].truncated_frac == 0.125


def test_cost_is_the_mean_and_peak_memory_the_maximum() -> None:
    cost = {row.label: row.cost for row in board_of(small_comparison()).rows}["opd"]
    assert cost.student_tokens == 1001  # of 1000, 1001, 1002
    assert (cost.rollout_s, cost.scoring_s, cost.update_s, cost.evaluation_s) == (1.5, 2.5, 3.5, 0.5)
    assert cost.peak_memory_bytes == 102 * 2**20


def test_failed_and_unfinished_runs_are_rows_with_the_reason() -> None:
    text = render_markdown(board_of(small_comparison()))
    assert "| eopd | 2 | failed: the loss is not finite at step 7 | – | – | – |" in text
    assert "| reopold | 0 | failed: did not finish (started 2026-01-02T03:04:05+00:00) | – | – | – |" in text
    assert "| eopd | 0, 1 (2 of 3) |" in text


def test_only_failed_runs_make_a_table() -> None:
    text = render_markdown(board_of([run("opd", 0, status="failed", reason="out of memory")]))
    assert "Tasks: none evaluated" in text
    assert "| opd | 0 | failed: out of memory |" in text


def test_first_line_says_what_the_table_is() -> None:
    first = render_markdown(board_of(small_comparison())).splitlines()[0]
    assert first == (
        "Setting tiny, training hash aaaa1111, engine hf. Tasks: arithmetic (8 problems × 4 samples, protocol p1). "
        "Seeds: 0, 1, 2. Scores in %, with the 95 % interval of the mean over problems and training seeds "
        "(† one seed: problems only, this checkpoint only). Made by `python -m harness.run`."
    )


def difference(*numbers: float) -> Difference:
    return Difference(*numbers, 0.1, Interval(0.5, 0.4, 0.6, 0.05, 5, 3, 200))  # type: ignore[arg-type]


def test_words_are_explained_once_under_the_first_table() -> None:
    board = build_leaderboard(small_comparison(), "made")
    assert [bool(sheet.key) for sheet in build_sheets(board)] == [True, *[False] * (len(build_sheets(board)) - 1)]
    text = render_markdown(board)
    first, second = [match.start() for match in re.finditer("^### ", text, flags=re.M)][:2]
    for words in ("a 95 % interval, over other problems", "Rank 1–4: ", "Cannot see: "):
        assert first < text.index(words) < second
    failed = build_leaderboard([run("opd", 0, status="failed", reason="x")], "made")
    assert "How to read" not in render_markdown(failed)


def test_format_of_numbers() -> None:
    assert format_interval(Interval(0.7341, 0.701, 0.767, 0.01, 5, 3, 200)) == "73.4 [70.1, 76.7]"
    assert format_interval(Interval(1.0, 0.8, 1.0, 0.0, 1, 1, 30)) == "100.0 [80.0, 100.0]†"
    assert format_difference(difference(0.306, 0.26, 0.352, 0.02, 5, 3, 200, 15.0, 0.0)) == "+30.6 [26.0, 35.2]"
    assert format_difference(difference(-0.0001, -0.02, 0.02, 0.02, 5, 3, 200, 0.0, 1.0)) == "0.0 [-2.0, 2.0]"
    assert format_difference(difference(-0.1, -0.12, -0.08, 0.02, 5, 3, 200, 0.0, 1.0)) == "-10.0 [-12.0, -8.0]"


def three_methods(gain: int, seeds: int = 3) -> list[RunRecord]:
    """Two methods that differ by noise of both signs, and one that solves `gain` more of 8 samples on each problem."""
    rng = np.random.default_rng(3)
    records = []
    for seed in range(seeds):
        for method, shift in (("opd", 0), ("eopd", 0), ("tropd", gain)):
            correct = (np.arange(40) % 3 + shift + rng.integers(0, 2, 40)).tolist()
            records.append(run(method, seed, evaluations=(evaluation(correct, samples=8),)))
    return records


def test_winner_only_where_every_difference_is_resolved() -> None:
    board = board_of(three_methods(gain=3))
    assert board.winners == {"arithmetic": "tropd"}
    assert len(board.comparisons) == 3
    resolved = {(pair.a, pair.b): pair.adjusted_p_value <= 0.05 for pair in board.comparisons}
    assert resolved == {("eopd", "opd"): False, ("eopd", "tropd"): True, ("opd", "tropd"): True}
    assert "| tropd (winner) |" in render_markdown(board)

    assert board_of(three_methods(gain=0)).winners == {"arithmetic": None}
    assert board_of(three_methods(gain=3, seeds=1)).winners == {"arithmetic": None}  # these checkpoints only
    unfinished = [*three_methods(gain=3), run("reopold", 0, status="failed", reason="?")]
    assert board_of(unfinished).winners == {"arithmetic": None}  # not shown to be worse
    assert "winner)" not in render_markdown(board_of(unfinished))


def test_task_that_some_runs_lack() -> None:
    both = (evaluation([1, 2]), evaluation([0, 0], task="aime24"))
    board = board_of([run("opd", 0, evaluations=both), run("tropd", 0, [4, 4]), run("opd", 1, [2, 2])])
    assert [row.label for row in board.rows] == ["opd", "tropd"]  # the row that lacks a task stands below
    text = render_markdown(board)
    assert text.index("### all tasks") < text.index("### aime24") < text.index("### arithmetic")
    assert "| tropd | 0 | not evaluated | – | – | – |" in text
    assert "| opd | 0 (1 of 2) | 0.0 [0.0, 84.2]† | – | – | 1 |" in text


def two_tasks(gain: int) -> list[RunRecord]:
    """The methods of `three_methods`, and a second task of 20 problems on which they score alike."""
    rng = np.random.default_rng(4)
    return [
        dataclasses.replace(
            record,
            evaluations=(*record.evaluations, evaluation(rng.integers(2, 4, 20).tolist(), samples=8, task="aime24")),
        )
        for record in three_methods(gain)
    ]


def test_average_of_tasks_has_its_own_differences_ranks_and_winner() -> None:
    board = board_of(two_tasks(gain=3))
    tropd = board.rows[0]
    runs = [record for record in two_tasks(gain=3) if record.method == "tropd"]
    matrices = [np.array([run.evaluations[task].correct for run in runs]) / 8 for task in (1, 0)]
    assert tropd.label == "tropd" and tropd.average is not None
    assert tropd.average.interval == mean_interval(matrices)
    assert tropd.average.interval.estimate == pytest.approx(np.mean([matrix.mean() for matrix in matrices]))
    assert board.winners == {"aime24": None, "arithmetic": "tropd", "average": "tropd"}
    assert tropd.average.ranks == (1, 1)
    text = render_markdown(board)
    assert "| method | aime24 | arithmetic | average | minus opd | rank |" in text
    assert "| tropd (winner) | " in text.split("### aime24")[0]


def test_average_is_on_the_runs_that_have_every_task() -> None:
    both = (evaluation([1, 2]), evaluation([0, 0], task="aime24"))
    board = board_of([run("opd", 0, evaluations=both), run("opd", 1, [2, 2]), run("tropd", 0, [4, 4])])
    averages = {row.label: row.average for row in board.rows}
    assert averages["opd"] is not None and averages["opd"].seeds == (0,)
    assert averages["tropd"] is None
    assert "| tropd | – | 100.0 [" in render_markdown(board)


def test_ranks_are_intervals_by_resolved_differences() -> None:
    """tropd is above both others, which are not told apart: rank 1, and 2 to 3."""
    ranks = {row.label: row.scores["arithmetic"].ranks for row in board_of(three_methods(gain=3)).rows}
    assert ranks == {"tropd": (1, 1), "opd": (2, 3), "eopd": (2, 3)}
    ranks = {row.label: row.scores["arithmetic"].ranks for row in board_of(three_methods(gain=3, seeds=1)).rows}
    assert set(ranks.values()) == {(1, 3)}  # one seed tells nothing about methods
    rows = {row.label: row for row in board_of(small_comparison()).rows}
    assert rows["student"].scores["arithmetic"].ranks is None and rows["teacher"].scores["arithmetic"].ranks is None


def test_what_the_table_cannot_see_is_said() -> None:
    board = board_of(three_methods(gain=0))
    detectable = {
        row.label: 100 * row.scores["arithmetic"].difference.detectable
        for row in board.rows
        if row.scores["arithmetic"].difference
    }
    least = min(detectable, key=detectable.__getitem__)
    assert f"This table cannot see less than {detectable[least]:.1f} points ({least} minus opd; " in render_markdown(
        board
    )
    assert "cannot see" not in render_markdown(board_of([run("opd", 0, [1, 2])]))


def test_pass_and_majority_of_the_samples() -> None:
    """pass@4 of [0, 1, 4, 2]: 3/4 of the problems have a right sample; two of four majorities are right."""
    voted = dataclasses.replace(evaluation([0, 1, 4, 2]), majority=(0, 0, 1, 1))
    board = board_of([run("opd", 0, evaluations=(voted,)), run("tropd", 0, [4, 4, 4, 4])])
    scores = {row.label: row.scores["arithmetic"] for row in board.rows}
    assert scores["opd"].pass_at_k == mean_interval([[0, 1, 1, 1]])
    assert scores["opd"].maj_at_k == mean_interval([[0, 0, 1, 1]])
    assert scores["tropd"].maj_at_k is None
    text = render_markdown(board)
    assert "| method | pass@4 | maj@4 | truncated |" in text
    assert "maj@4" not in render_markdown(board_of([run("opd", 0, [1, 2])]))


def test_published_rows_stand_apart_with_source_and_noise() -> None:
    published = published_rows("", ["qwen3_multi"])
    board = build_leaderboard(
        [run("tropd", 0, evaluations=(evaluation([1], task="ifbench"),))], "made", None, published
    )
    text = render_markdown(board)
    assert "### published: qwen3_multi" in text and "Source: arXiv 2606.01249, Qwen3 main table." in text
    assert (
        "| TrOPD | 52.1 ± 1.6 | 44.1 ± 1.6 | 83.0 ± 1.0 | 36.0 ± 1.7 | 68.7 | 42.2 ± 2.9 | 36.0 ± 3.6 | 51.7 |" in text
    )
    assert "58.9 ± 1.7‡" in text  # the teacher's doubtful cell
    assert {row.label for row in board.rows} == {"tropd"}
    assert r"TrOPD & 42.2 $\pm$ 2.9 & -- \\" in render_latex(board)
    rows = list(csv.DictReader(io.StringIO(render_csv(board))))
    cell = next(row for row in rows if (row["method"], row["task"]) == ("TrOPD", "ifbench"))
    assert (cell["block"], cell["score"], cell["standard_error"]) == ("published", "0.4218", "0.0288017")
    content = leaderboard_to_dict(board)
    assert content["published"][0]["standard_error"] == pytest.approx(100 * (0.3541 * 0.6459 / 960) ** 0.5)


def test_setting_of_a_published_table_shows_it(tmp_path: Path) -> None:
    records = [run("opd", 0, [1, 2], setting={**SETTING, "name": "deepseek_math"})]
    board = rebuild_leaderboard(write_runs(tmp_path / "runs", records), "made")
    assert {cell.table for cell in board.published} == {"table1_ablation", "deepseek_single"}
    chosen = publish(tmp_path / "runs", tmp_path / "published", references=["qwen3_multi"])
    assert {cell.table for cell in chosen.published} == {"qwen3_multi"}
    assert chosen.command.endswith(" --reference qwen3_multi")
    assert main([str(tmp_path / "runs"), "--reference", "absent"]) == 2


def test_csv_and_latex_have_every_row() -> None:
    board = board_of([*small_comparison(), run("tropd", 0, [4] * 8, changed_knobs={"max_beta": 0.5})])
    rows = list(csv.DictReader(io.StringIO(render_csv(board))))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert {(row["block"], row["method"]) for row in rows if row["block"] == "failed"} == {
        ("failed", "eopd"),
        ("failed", "reopold"),
    }
    opd = next(row for row in rows if row["method"] == "opd")
    assert (opd["seeds"], opd["score"], opd["student_tokens"], opd["peak_memory_bytes"]) == (
        *("0 1 2", "0.5", "1001"),
        str(102 * 2**20),
    )
    lines = render_latex(board).splitlines()
    assert r"tropd (max\_beta=0.5) & 100.0 [63.1, 100.0]$^\dagger$ & 1--4 \\" in lines
    assert r"eopd (seed 2) & \multicolumn{2}{l}{failed: the loss is not finite at step 7} \\" in lines
    assert lines[2] == r"\begin{tabular}{lrr}" and all(line.endswith(r"\\") for line in lines[4:-2] if "&" in line)


def test_rows_of_one_method_stand_together_where_the_best_of_them_is() -> None:
    """Of 4: solved 1, 3, 4 by three rows of tropd, 2 by opd and 3.5 by eopd. The table says so in its head."""
    knobs = [{"changed_knobs": {"max_beta": beta}} for beta in (0.5, 0.25)]
    runs = [run("tropd", 0, [1] * 8), run("tropd", 0, [3] * 8, **knobs[0]), run("tropd", 0, [4] * 8, **knobs[1])]
    others = [
        run("opd", 0, [2] * 8),
        run("eopd", 0, [3, 4] * 4),
        run("student", 0, [4] * 8),
        run("teacher", 0, [0] * 8),
    ]
    board = board_of([*others, *runs])
    assert [row.label for row in board.rows] == [
        *("student", "tropd (max_beta=0.25)", "tropd (max_beta=0.5)", "tropd", "eopd", "opd", "teacher"),
    ]
    assert "Rows are ordered by score, those of one method together." in render_markdown(board)
    assert "ordered" not in render_markdown(board_of([*others, runs[0]]))  # every method once: nothing to say


def test_gpu_hours_are_of_the_runs_that_used_gpus() -> None:
    """(1.5 + 2.5 + 3.5 + 0.5) s on 2 GPUs = 16 s = 16 / 3600 h; unknown where a run does not say."""
    on_gpus = {"provenance": {**PROVENANCE, "gpus": 2}}
    rows = {
        row.label: row.cost.gpu_hours
        for row in board_of([run("opd", 0, [1], **on_gpus), run("tropd", 0, [1], **on_gpus), run("tropd", 1, [1])]).rows
    }
    assert rows == {"opd": pytest.approx(16 / 3600), "tropd": None}


def test_difference_is_on_the_seeds_that_both_have() -> None:
    text = render_markdown(board_of([run("opd", 1, [1, 2, 3]), *(run("tropd", s, [2, 2, 4]) for s in (0, 1))]))
    assert "† on seed 1 |" in text
    assert "| – |" in render_markdown(board_of([run("opd", 1, [1, 2]), run("tropd", 0, [2, 2])]))


def test_no_records_or_a_mixture_raise() -> None:
    with pytest.raises(UserError, match="at least one run"):
        board_of([])
    with pytest.raises(UserError, match="Mixtures refused"):
        board_of([run("opd", 0), run("opd", 1, training_hash="other")])


def test_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    records = small_comparison()
    for name, order in (("a", records), ("b", records[::-1])):
        write_leaderboard(tmp_path / name, board_of(order))
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == FILES


def test_json_has_the_numbers_and_their_estimand() -> None:
    content = json.loads(json.dumps(leaderboard_to_dict(board_of(small_comparison())), allow_nan=False))
    rows = {row["label"]: row for row in content["rows"]}
    assert rows["opd"]["scores"]["arithmetic"]["interval"]["estimate"] == 0.5
    assert rows["opd"]["scores"]["arithmetic"]["interval"]["estimand"] == "problems and training seeds"
    assert rows["student"]["scores"]["arithmetic"]["interval"]["estimand"] == "this checkpoint only"
    assert rows["eopd"]["missing_seeds"] == [2]
    assert [run["reason"][:8] for run in content["failed"]] == ["the loss", "did not "]


def test_terminal_table_fits_100_columns_without_colours() -> None:
    label = {"changed_knobs": {"beta": 0.001, "schedule": "[own]"}}
    text = terminal_text(board_of([*small_comparison(), run("tropd", 0, [4, 4, 4, 4, 0, 0, 0, 0], **label)]))
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text
    for part in ("71.9 [57.1, 83.8]", "+21.9 [17.7, 26.0]", "0, 1 (2 of 3)", "failed: the loss", "schedule=[own]"):
        assert part in text


def test_a_table_says_which_grader_scored_it_and_what_the_other_would_change() -> None:
    graders = {"official_grader": 0.0, "graders_differ": 0.025, "strict_score": 0.5, "official_score": 0.475}
    scored = [
        dataclasses.replace(
            record, evaluations=tuple(dataclasses.replace(entry, metrics=graders) for entry in record.evaluations)
        )
        for record in (run("opd", 0, [2, 3]), run("tropd", 0, [1, 4]))
    ]
    board = board_of(scored)
    assert "grader strict, strict and official differ on 2.5 % of answers)" in render_markdown(board)
    assert leaderboard_to_dict(board)["tasks"][0]["grader"] == "strict"
    plain = board_of([run("opd", 0, [2, 3])])  # as published tables are
    assert "grader" not in render_markdown(plain) and "grader" not in leaderboard_to_dict(plain)["tasks"][0]


def test_operations_and_seconds_stand_side_by_side() -> None:
    """Of opd and of a method at 1.2 times its operations and half of its 7.5 seconds; not shown where not recorded."""
    opd = run("opd", 0, [1, 2], counters=Counters(10, 100, 0, 100, 1.5, 2.5, 3.5, operations=1e9))
    other = run("other", 0, [1, 2], counters=Counters(10, 100, 0, 100, 0.75, 1.25, 1.75, operations=1.2e9))
    older = run("older", 0, [1, 2], counters=Counters(10, 100, 0, 100, 1.5, 2.5, 3.5))
    sheets = {sheet.title: sheet for sheet in build_sheets(build_leaderboard([opd, other, older], "make it"))}
    cells = {row[0]: row[5:] for row in sheets["cost"].rows}
    assert cells["opd"] == ("1e+09", "1.00", "7.5", "1.00")
    assert cells["other"] == ("1.2e+09", "1.20", "3.8", "0.50")
    assert cells["older"] == ("–", "–", "7.5", "1.00")
