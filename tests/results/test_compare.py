"""Two sides: what differs, paired differences on what they share, and the baseline as a regression test."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from harness.compare import main
from harness.errors import UserError
from harness.results.publish import publish
from harness.results.sides import find_differences, hold_against, load_side, pair_up
from harness.results.statistics import paired_difference

from .synthetic import PROVENANCE, SETTING, evaluation, run, small_comparison, write_runs


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The small comparison as run folders and as a published folder."""
    runs = write_runs(tmp_path / "runs", small_comparison())
    publish(runs, tmp_path / "published")
    return runs, tmp_path / "published"


@pytest.mark.parametrize(("name", "count"), [("", 12), ("tropd", 3), ("tropd/seed1", 1)])
def test_a_side_is_a_run_a_row_or_a_comparison_published_or_not(
    folders: tuple[Path, Path], name: str, count: int
) -> None:
    for folder in folders:
        side = load_side(folder / name)
        assert len(side) == count and {record.method for record in side} >= {"tropd"}
        assert load_side(folders[0] / name)[0].evaluations == side[0].evaluations


def test_pairs_are_on_the_seeds_that_both_have() -> None:
    records = small_comparison()
    tropd, eopd = ([record for record in records if record.method == name] for name in ("tropd", "eopd"))
    (pair,) = pair_up(eopd, tropd)
    assert (pair.label, pair.seeds) == ("eopd / tropd", ("0", "1"))
    scores = [np.array([r.evaluations[0].correct for r in side[:2]]) / 4 for side in (tropd, eopd)]
    assert pair.difference == paired_difference(*scores)  # B minus A


def test_single_runs_are_paired_whatever_their_seeds_and_protocols_are_not_mixed() -> None:
    (pair,) = pair_up([run("opd", 0, [1, 2])], [run("opd", 7, [2, 4])])
    assert (pair.label, pair.seeds, pair.difference.estimate) == ("opd", ("0/7",), 3 / 8)
    other = run("opd", 0, evaluations=(evaluation([1, 2], protocol="p2"),))
    assert pair_up([run("opd", 0, [1, 2])], [other]) == []
    assert pair_up([run("opd", 0, [1]), run("opd", 1, [1])], [run("opd", 2, [1]), run("opd", 3, [1])]) == []


def test_what_differs_is_named_by_its_key() -> None:
    a = run("opd", 0, [1, 2])
    b = dataclasses.replace(
        run("opd", 0, [2, 2]),
        setting={**SETTING, "learning_rate": 0.5, "optimiser": {"beta": 0.8}},
        knobs={"alpha": 2.0},
        training_hash="bbbb",
        provenance={**PROVENANCE, "versions": {"torch": "2.14.0"}},
    )
    assert find_differences([a], [b]) == {
        "setting.learning_rate": (0.001, 0.5),
        "setting.optimiser.beta": (0.9, 0.8),
        "training_hash": ("aaaa1111", "bbbb"),
        "versions.torch": ("2.13.0", "2.14.0"),
        "knobs of opd: alpha": (1.0, 2.0),
    }
    assert find_differences([a], [a]) == {}


def test_a_score_outside_its_interval_is_a_failure() -> None:
    # 50 % on 40 problems: [33.8, 66.2] by Clopper and Pearson
    baseline = [run("opd", seed, [2] * 40) for seed in range(2)]
    inside, outside = [run("opd", 0, [2] * 35 + [4] * 5)], [run("opd", 0, [0] * 20 + [2] * 20)]
    (verdict,) = hold_against(inside, baseline)
    assert verdict.ok and verdict.score == pytest.approx(90 / 160)
    assert (verdict.baseline.seeds, verdict.baseline.low) == (1, pytest.approx(0.338, abs=1e-3))  # the shared seed
    (verdict,) = hold_against(outside, baseline)
    assert (verdict.ok, verdict.reason, verdict.score) == (False, "outside", 0.25)
    (verdict,) = hold_against([run("opd", 0, status="failed", reason="out of memory")], baseline)
    assert verdict.reason == "seed 0 failed: out of memory" and verdict.score is None
    (verdict,) = hold_against([run("opd", 9, [2] * 40)], baseline)
    assert verdict.ok and verdict.baseline.seeds == 2  # no seed in common: all of the baseline's


def test_what_cannot_be_held_against_a_baseline_is_refused() -> None:
    baseline = [run("opd", 0, [1, 2])]
    with pytest.raises(UserError, match="none of these rows; it has: opd"):
        hold_against([run("tropd", 0, [1, 2])], baseline)
    with pytest.raises(UserError, match=r"another Setting: the two differ in setting\.steps"):
        hold_against([run("opd", 0, [1, 2], training_hash="x", setting={**SETTING, "steps": 11})], baseline)
    with pytest.raises(UserError, match="another protocol"):
        hold_against([run("opd", 0, evaluations=(evaluation([1, 2], protocol="p2"),))], baseline)


def test_command(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, published = map(str, folders)
    assert main([f"{runs}/opd", f"{published}/tropd"]) == 0
    text = capsys.readouterr().out
    for part in ("opd / tropd", "+21.9 [17.7,", "A = ", "label", "80 % power"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 100
    assert main([f"{runs}/opd", "--baseline", published]) == 0
    capsys.readouterr()
    worse = write_runs(tmp_path / "worse", [run("opd", 0, [0] * 8)])
    assert main([str(worse), "--baseline", published]) == 1
    assert "FAILED  arithmetic  opd" in capsys.readouterr().out
    assert main([runs, "--baseline", published]) == 1  # a run of the comparison failed
    assert "seed 2 failed: the loss is" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["absent", "absent"], ["absent"], [], ["a", "b", "--baseline", "c"]])
def test_bad_input_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1


def test_nothing_in_common_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides = [str(write_runs(tmp_path / name, [run(name, 0), run("opd", 0)])) for name in ("tropd", "eopd")]
    assert main(sides) == 2
    assert "share no finished evaluation" in capsys.readouterr().err
