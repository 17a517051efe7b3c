"""The Setting's schedule by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from baselines.opd import OPD
from harness.training.budget import Budget
from tests.training.test_step import config_for, run


def test_the_schedule_by_hand(random_pair: Path, tmp_path: Path) -> None:
    """Four updates of warm-up: 1/4, 2/4, 3/4, 4/4; then the cosine of 0, 1/4, 2/4 and 3/4 of the remaining four."""
    setting = config_for(random_pair, tmp_path, OPD(), steps=8, warmup_steps=4).setting
    assert [Budget(setting).rate_share(step) for step in range(8)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
    falling = dataclasses.replace(setting, lr_schedule="cosine")
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4]
    assert [Budget(falling).rate_share(step) for step in range(8)] == pytest.approx(expected)
    plain = dataclasses.replace(setting, warmup_steps=0)
    assert {Budget(plain).rate_share(step) for step in range(8)} == {1.0}


def test_no_update_is_lost_to_the_warmup(random_pair: Path, tmp_path: Path) -> None:
    """The first update moves the weights: it is made with half of the rate where two warm up."""
    config = config_for(random_pair, tmp_path, OPD(), steps=1, warmup_steps=2)
    half = dataclasses.replace(config.setting, learning_rate=config.setting.learning_rate / 2, warmup_steps=0)
    warmed, _ = run(config, tmp_path / "warmed")
    expected, _ = run(dataclasses.replace(config, setting=half), tmp_path / "half")
    assert all((value == expected[name]).all() for name, value in warmed.items())
