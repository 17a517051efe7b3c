"""A budget of operations: what it ends a run at, what follows it, and that a broken run goes on exactly."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from baselines.opd import OPD
from baselines.seqkd import SeqKD
from harness.config.settings import RunConfig
from harness.errors import UserError
from harness.results.flops import EQUAL_COST, training_flops
from harness.results.record import Counters
from harness.training.budget import Budget
from harness.training.mechanisms import check_budget
from harness.training.recorder import StepRecorder
from harness.types import Method
from tests.conftest import execution, random_model
from tests.training.test_step import assert_same_weights, config_for, run

STUDENT, TEACHER = (random_model(seed, hidden).num_parameters() for seed, hidden in ((1, 64), (2, 96)))
COSTS = {"tokens/student": 100.0, "tokens/scored": 100.0}  # of a step
STEP = float(2 * STUDENT * 100 + 2 * TEACHER * 100 + 6 * STUDENT * 100)


def budgeted(random_pair: Path, tmp_path: Path, method: Method, steps: float, **changes) -> RunConfig:
    """A run that may cost as much as so many steps of OPD whose completions have full length (8 x 16 tokens)."""
    return config_for(random_pair, tmp_path, method, operations=1.28 * steps * STEP, **{"steps": 400, **changes})


def test_the_clock_by_hand(random_pair: Path, tmp_path: Path) -> None:
    """A budget of 10.25 equal steps ends after ten: an eleventh would be further from it."""
    setting = config_for(random_pair, tmp_path, OPD(), operations=10.25 * STEP, steps=20, lr_schedule="cosine").setting
    budget = Budget(setting, [COSTS] * 5)
    assert training_flops(STUDENT, TEACHER, Counters(student_tokens=100, scored_tokens=100)) == STEP
    assert budget.spent == 5 * STEP
    assert budget.progress(5) == pytest.approx(5 / 10.25)
    assert budget.rate_share(5) == pytest.approx((1 + math.cos(math.pi * 5 / 10.25)) / 2)
    ends = []
    while not budget.is_spent:
        budget.add(COSTS)
        ends.append(budget.spent / STEP)
    assert ends == pytest.approx([6, 7, 8, 9, 10])
    with pytest.raises(RuntimeError, match=r"spent 0\.976 of setting\.operations"):
        budget.check_spent(10)
    assert Budget(setting, [COSTS] * 10).most_steps == 10  # it goes on, and nothing is left to do
    assert (budget.progress(10), Budget(setting).most_steps) == (pytest.approx(10 / 10.25), 20)
    with pytest.raises(RuntimeError, match=r"setting\.steps=3 updates spent 29% of setting\.operations"):
        Budget(dataclasses.replace(setting, steps=3), [COSTS] * 3).check_spent(3)


def test_steps_are_the_clock_without_operations(random_pair: Path, tmp_path: Path) -> None:
    setting = config_for(random_pair, tmp_path, OPD(), steps=8).setting
    budget = Budget(setting, [COSTS] * 8)
    assert [budget.progress(step) for step in (0, 4, 8)] == [0, 0.5, 1]
    assert not budget.is_spent
    budget.check_spent(3)


def test_it_is_a_part_of_the_hash_where_it_is_used(random_pair: Path, tmp_path: Path) -> None:
    setting = config_for(random_pair, tmp_path, OPD()).setting
    assert "operations" not in setting.by_value()
    assert dataclasses.replace(setting, operations=1e9).training_hash() != setting.training_hash()
    with pytest.raises(UserError, match="must be positive"):
        dataclasses.replace(setting, operations=0.0)
    with pytest.raises(UserError, match="a run has one budget"):
        dataclasses.replace(setting, operations=1e9, student_tokens=1e3)


def test_the_same_operations_are_the_same_run(random_pair: Path, tmp_path: Path) -> None:
    """OPD under a constant rate does not look at its clock: what six steps cost buys the same six steps."""
    weights, rows = run(config_for(random_pair, tmp_path, OPD(), steps=6), tmp_path / "steps")
    spent = Budget(config_for(random_pair, tmp_path, OPD()).setting, rows).operations
    again, bought = run(config_for(random_pair, tmp_path, OPD(), steps=30, operations=spent), tmp_path / "operations")
    assert len(bought) == 6
    assert_same_weights(weights, again)


@pytest.mark.parametrize("method", [OPD(), SeqKD()], ids=lambda method: type(method).__name__)
def test_every_method_spends_the_same(random_pair: Path, tmp_path: Path, method: Method) -> None:
    config = budgeted(random_pair, tmp_path, method, 30, lr_schedule="cosine")
    _, rows = run(config, tmp_path / "run")
    spent = Budget(config.setting, rows).spent
    assert 1 / EQUAL_COST <= spent / config.setting.operations <= EQUAL_COST
    rates = [row["learning_rate"] for row in rows]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.02 * rates[0]  # it has fallen to the end, whatever the number of steps


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The process ends when this step's checkpoint is on disk."""
    original = StepRecorder.on_save

    def on_save(self, args, state, control, **kwargs):
        original(self, args, state, control, **kwargs)
        if state.global_step == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(StepRecorder, "on_save", on_save)


@pytest.mark.parametrize("at", [4, "last"])
def test_a_broken_run_goes_on_exactly(random_pair: Path, tmp_path: Path, monkeypatch, at: int | str) -> None:
    """Broken in the middle, or when all is spent and nothing but the final checkpoint is missing."""
    config = budgeted(random_pair, tmp_path, OPD(), 25, lr_schedule="cosine")
    whole, rows = run(config, tmp_path / "whole")
    last = len(rows) if at == "last" else int(at)
    config = dataclasses.replace(config, engine=execution(micro_batch_prompts=8, save_every=last))
    with monkeypatch.context() as broken:
        interrupt(broken, last)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "broken")
    from harness.console.progress import RunProgress
    from harness.models.loading import load_model
    from harness.results.record import read_metrics
    from harness.training.train import train

    train(config, tmp_path / "broken", RunProgress(None, 1))
    assert_same_weights(whole, load_model(str(tmp_path / "broken" / "checkpoint")).state_dict())
    tokens = [[row["tokens/student"] for row in found] for found in (rows, read_metrics(tmp_path / "broken"))]
    assert tokens[0] == tokens[1]


def test_half_of_the_tokens_are_twice_the_steps(random_pair: Path, tmp_path: Path) -> None:
    """A budget of the student's own tokens: a step that writes half as many costs half."""
    setting = config_for(random_pair, tmp_path, OPD(), student_tokens=1000.0, steps=100).setting
    whole, half = Budget(setting), Budget(setting)
    for budget, tokens in ((whole, 100.0), (half, 50.0)):
        steps = 0
        while not budget.is_spent:
            budget.add({"tokens/student": tokens, "tokens/scored": 100.0})
            steps += 1
        budget.check_spent(steps)
        assert steps == 1000 / tokens
    assert half.operations > whole.operations


def test_who_writes_nothing_has_no_budget_of_tokens(random_pair: Path, tmp_path: Path) -> None:
    config = config_for(random_pair, tmp_path, SeqKD(), student_tokens=1000.0)
    with pytest.raises(UserError, match=r"setting\.student_tokens=1000: method=test has the student write nothing"):
        check_budget(config)
    check_budget(config_for(random_pair, tmp_path, OPD(), student_tokens=1000.0))
