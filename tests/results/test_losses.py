"""What a run that was scored on nothing says of its training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from harness.results.leaderboard import build_leaderboard
from harness.results.losses import loss_lines
from harness.results.render import build_sheets, describe, footnotes

from .synthetic import evaluation, run


def test_the_first_and_the_last_steps(tmp_path: Path) -> None:
    """Losses 1, 2, 3, 4, 5: a window of 2 steps, 1.5 and 4.5. Untrained rows have no steps and no line."""
    trained, untrained = tmp_path / "opd" / "seed0", tmp_path / "student" / "seed0"
    for folder in (trained, untrained):
        folder.mkdir(parents=True)
    rows = [{"step": k, "loss": float(k), "length/completion": 10.0} for k in range(1, 6)]
    (trained / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert loss_lines([trained, untrained]) == [
        "opd seed0, first and last 2 of 5 steps: loss 1.5 -> 4.5; tokens a completion 10 -> 10"
    ]


def test_a_table_of_one_row_and_one_without_tasks_speak_of_no_winner() -> None:
    one = [run("opd", seed, evaluations=(evaluation([4, 5, 6, 7], samples=8),)) for seed in range(3)]
    board = build_leaderboard(one, "make it")
    (note,) = {sheet.note for sheet in build_sheets(board) if "winner" in sheet.note or "compare" in sheet.note}
    assert note == "One row: there is nothing to compare it with."
    bare = build_leaderboard([dataclasses.replace(record, evaluations=()) for record in one], "make it")
    assert "Scores in %" not in describe(bare) and "none evaluated" in describe(bare)
    assert not [line for line in footnotes(bare) if line.startswith("above ")]


def test_a_row_with_fewer_seeds_is_explained() -> None:
    """Two seeds in the table: eopd has one of them."""
    scores = (evaluation([4, 5, 6, 7], samples=8),)
    whole = [run("opd", seed, evaluations=scores) for seed in range(2)]
    words = " (1 of 2): a row with 1 of the table's seeds, which are those of all its runs."
    part = build_leaderboard([*whole, run("eopd", 0, evaluations=scores)], "make it")
    assert [line.endswith(words) for line in footnotes(part)].count(True) == 1
    assert not [line for line in footnotes(build_leaderboard(whole, "make it")) if words in line]
