"""Curves over seeds, against values worked out by hand."""

from __future__ import annotations

import numpy as np

from harness.report.curves import build_curve


def rows(values: dict[int, float], tokens: float = 10.0) -> list[dict[str, float]]:
    return [{"step": step, "x": value, "tokens/student": tokens} for step, value in values.items()]


def test_mean_and_band_over_seeds() -> None:
    curve = build_curve("m", [rows({1: 1.0, 2: 4.0}), rows({1: 3.0, 2: 8.0})], "x")
    assert curve is not None
    assert curve.x.tolist() == [1, 2]
    assert curve.mean.tolist() == [2.0, 6.0]  # (1 + 3) / 2, (4 + 8) / 2
    assert (curve.low.tolist(), curve.high.tolist(), curve.seeds) == ([1.0, 4.0], [3.0, 8.0], 2)


def test_only_steps_that_every_seed_has() -> None:
    curve = build_curve("m", [rows({1: 1.0, 2: 1.0, 3: 1.0}), rows({2: 5.0, 3: float("nan")})], "x")
    assert curve is not None
    assert (curve.x.tolist(), curve.mean.tolist()) == ([2], [3.0])
    assert build_curve("m", [rows({1: 1.0}), rows({2: 1.0})], "x") is None
    assert build_curve("m", [], "x") is None


def test_tokens_are_summed_over_all_steps_and_averaged_over_seeds() -> None:
    first = [{"step": 1, "tokens/student": 10.0}, {"step": 2, "tokens/student": 20.0, "x": 1.0}]
    second = [{"step": 1, "tokens/student": 30.0}, {"step": 2, "tokens/student": 40.0, "x": 1.0}]
    curve = build_curve("m", [first, second], "x", "tokens/student")
    assert curve is not None
    assert curve.x.tolist() == [50.0]  # ((10 + 20) + (30 + 40)) / 2


def test_blocks_are_averaged_before_the_seeds_are_compared() -> None:
    seeds = [rows({1: 0.0, 2: 4.0, 3: 10.0}), rows({1: 4.0, 2: 0.0, 3: 20.0})]
    curve = build_curve("m", seeds, "x", points=2)
    assert curve is not None
    assert curve.x.tolist() == [1.5, 3.0]
    assert curve.mean.tolist() == [2.0, 15.0]
    assert curve.low.tolist() == [2.0, 10.0]  # both seeds have the mean 2 over steps 1 and 2
    long = build_curve("m", [rows(dict.fromkeys(range(1, 1001), 1.0))], "x", points=100)
    assert long is not None
    assert len(long.x) == 100
    assert np.all(long.mean == 1.0)


def test_a_learning_curve_starts_before_the_first_step() -> None:
    first = {"step": 1, "start/dev": 0.25, "tokens/student": 10.0, "operations": 5.0}
    second = {"step": 2, "eval/dev": 0.5, "tokens/student": 30.0, "operations": 7.0}
    places = {"step": [0, 2], "tokens/student": [0, 40], "operations": [0, 12]}
    for axis, x in places.items():
        curve = build_curve("m", [[first, second]], "eval/dev", axis)
        assert curve is not None
        assert (curve.x.tolist(), curve.mean.tolist()) == (x, [0.25, 0.5])
    assert build_curve("m", [[{**first, "operations": None}, second]], "eval/dev", "operations") is None


def test_smoothing_is_a_moving_mean_of_each_seed_shorter_at_the_ends() -> None:
    """1, 3, 8, 0 over 3 steps: (1 + 3) / 2, (1 + 3 + 8) / 3, (3 + 8 + 0) / 3, (8 + 0) / 2."""
    curve = build_curve("m", [rows({1: 1.0, 2: 3.0, 3: 8.0, 4: 0.0})], "x", window=3)
    assert curve is not None
    assert curve.mean.tolist() == [2.0, 4.0, 11 / 3, 4.0]
    seeds = [rows({1: 0.0, 2: 6.0, 3: 0.0}), rows({1: 6.0, 2: 0.0, 3: 6.0})]
    curve = build_curve("m", seeds, "x", window=3)
    assert curve is not None
    assert curve.low.tolist() == [3.0, 2.0, 3.0] and curve.high.tolist() == [3.0, 4.0, 3.0]
