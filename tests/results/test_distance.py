"""The table of distances: intervals against Student's t and literals, pairs, verdicts, and what is refused."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from harness.compare import main as compare
from harness.results import distance
from harness.results.distance import build_distances, real_difference, real_interval
from harness.results.leaderboard import build_leaderboard, leaderboard_to_dict
from harness.results.record import Distance, RunRecord, load_record, write_record
from harness.results.render import build_sheets, render_markdown
from tests.results.synthetic import run

NOISE = np.random.default_rng(0).normal(0, 0.02, (3, 2, 16))  # seeds, methods, prompts


def measured(method: str, seed: int, reverse: Sequence[float], **changes: str) -> RunRecord:
    """A completed run with these distances; nothing was evaluated."""
    found = Distance(
        distance_hash="h" * 64,
        prompts_digest=f"prompts of {seed}",
        source="prompts that the run does not reach",
        reverse=tuple(reverse),
        forward=tuple(2 * x for x in reverse),
        tokens=(10,) * len(reverse),
        means={"student_entropy": 0.5, "teacher_entropy": 0.25, "student_stop_elsewhere": 0.001},
    )
    return run(method, seed, distance=dataclasses.replace(found, **changes))


def records(shifts: dict[str, float]) -> list[RunRecord]:
    """Three seeds of methods whose reverse KL is 0.5 + shift + what is of the prompt, and a little noise."""
    prompts = np.linspace(-0.2, 0.2, 16)
    return [
        measured(method, seed, 0.5 + shift + prompts + NOISE[seed, number % 2])
        for number, (method, shift) in enumerate(shifts.items())
        for seed in range(3)
    ]


def test_one_seed_is_students_t_over_prompts() -> None:
    values = np.array([0.1, 0.4, 0.2, 0.7, 0.5])
    found = real_interval(values[None])
    half = stats.t.ppf(0.975, 4) * values.std(ddof=1) / math.sqrt(5)
    assert found.estimate == pytest.approx(0.38)
    assert (found.low, found.high) == pytest.approx((0.38 - half, 0.38 + half))
    wide = real_interval(np.array([[0.0, 0.01, 3.0]]))
    assert wide.low == 0  # no divergence is below it
    assert wide.high > 1


def test_a_difference_by_hand() -> None:
    """a − b = (−0.1, −0.3, −0.2): mean −0.2, standard error 0.1 / √3, t = −2 √3 with 2 degrees of freedom."""
    b = np.array([[1.0, 2.0, 4.0]])
    found = real_difference(b + np.array([[-0.1, -0.3, -0.2]]), b)
    assert found.estimate == pytest.approx(-0.2)
    assert found.statistic == pytest.approx(-2 * math.sqrt(3))
    assert found.p_value == pytest.approx(2 * stats.t.cdf(-2 * math.sqrt(3), 2))
    assert found.improvement.estimate == 1  # nearer on every prompt
    same = real_difference(b, b)
    assert (same.estimate, same.p_value, same.improvement.estimate) == (0, 1, 0.5)
    constant = real_difference(b - 1, b)  # known without error
    assert (constant.low, constant.high, constant.p_value) == (-1, -1, 0)


def test_rows_of_one_method_stand_together() -> None:
    """Nearest first: tropd (beta=1) at -0.3, and tropd at 0.2 behind it, before opd at 0."""
    runs = records({"opd": 0.0, "tropd": 0.2})
    runs += [dataclasses.replace(r, method="tropd", changed_knobs={"beta": 1}) for r in records({"x": -0.3})]
    table = build_distances(runs, "opd")
    assert table is not None
    assert [row.label for row in table.rows] == ["tropd (beta=1)", "tropd", "opd"]


def test_the_nearest_is_resolved_or_none() -> None:
    table = build_distances(records({"opd": 0.0, "near": -0.2, "far": 0.1}), "opd")
    assert table is not None
    assert table.nearest == "near"
    assert [row.label for row in table.rows] == ["near", "opd", "far"]
    near = table.rows[0]
    assert near.difference is not None
    assert near.difference.estimate == pytest.approx(-0.2, abs=0.02)
    assert near.difference.high < 0
    assert near.completion_kl.estimate == pytest.approx(10 * near.reverse.estimate)
    assert near.forward.estimate == pytest.approx(2 * near.reverse.estimate)
    assert table.rows[1].difference is None
    alike = build_distances(records({"opd": 0.0, "same": 0.0}), "opd")
    assert alike is not None
    assert alike.nearest is None
    one_seed = [record for record in records({"opd": 0.0, "near": -0.2}) if record.seed == 0]
    single = build_distances(one_seed, "opd")
    assert single is not None
    assert single.nearest is None  # one seed says nothing of a method
    assert "†" in distance.cells(single, "–", "†")[0][2]


def test_a_pair_shares_its_prompts_noise() -> None:
    """Paired, prompts drop out: the difference is far more certain than either mean."""
    table = build_distances(records({"opd": 0.0, "near": -0.05}), "opd")
    assert table is not None
    row = next(row for row in table.rows if row.label == "near")
    assert row.difference is not None
    assert row.difference.standard_error < 0.3 * row.reverse.standard_error


def test_mixtures_are_refused_and_the_rest_stands() -> None:
    mixed = [*records({"opd": 0.0}), measured("other", 0, [0.5] * 16, distance_hash="g" * 64)]
    board = build_leaderboard([*mixed, run("opd", 7, [1, 2])], "make it")
    assert board.distance is not None
    assert (board.distance.rows, board.distance.nearest) == ((), None)
    assert board.rows[0].scores
    sheets = {sheet.title: sheet for sheet in build_sheets(board)}
    assert sheets["distance to the teacher"].note == (
        "Mixtures refused: opd seed 0 and other seed 0 were measured in different ways; run the comparison again, "
        "which measures anew."
    )
    assert "distance to the teacher, by sample" not in sheets
    prompts = build_distances([measured("a", 0, [0.5] * 4), measured("b", 0, [0.5] * 4, prompts_digest="x")], "opd")
    assert prompts is not None
    assert "on different prompts" in prompts.refused


def test_a_verdict_without_a_benchmark() -> None:
    board = build_leaderboard(records({"student": 0.3, "opd": 0.0, "near": -0.2}), "make it")
    text = render_markdown(board)
    assert "Nothing to compare." not in text
    assert re.search(r"\| near \| 0, 1, 2 \| 0\.(29|30)\d \[0\.2", text)
    assert "Nearest: near; its reverse KL is below every other method's, resolved" in text
    assert "| 0.500 / 0.250 | – / – | 0.10 / – |" in text
    content = leaderboard_to_dict(board)
    assert content["distance"]["rows"][0]["label"] == "student"
    unmeasured = build_leaderboard([run("opd", 0)], "make it")
    assert "distance" not in leaderboard_to_dict(unmeasured)
    assert "Nothing to compare." in render_markdown(unmeasured)


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    record = measured("opd", 0, [0.5, 0.25])
    write_record(tmp_path / "record.json", record)
    assert load_record(tmp_path / "record.json") == record


def test_two_sides_without_a_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`harness.compare` has the distance where nothing was evaluated, and refuses sides that share neither."""
    for side, shift, digest in (("a", 0.0, "p"), ("b", 0.1, "p"), ("c", 0.1, "q")):
        folder = tmp_path / side / "opd" / "seed0"
        folder.mkdir(parents=True)
        values = 0.5 + shift + NOISE[0, 0]
        write_record(folder / "record.json", measured("opd", 0, values.tolist(), prompts_digest=digest))
    assert compare([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    shown = capsys.readouterr().out
    assert "+0.100" in shown
    assert compare([str(tmp_path / "a"), str(tmp_path / "c")]) == 2
    assert "share no finished evaluation" in capsys.readouterr().err
