"""Float32 masters of narrow weights: small updates are kept, whatever the weights' type, and survive a save."""

from __future__ import annotations

import copy
import dataclasses
import io
from pathlib import Path

import pytest
import torch

from baselines.opd import OPD
from baselines.seqkd import SeqKD
from harness.config.methods import register_methods
from harness.config.settings import RunConfig
from harness.config.sweep import planned_runs
from harness.console.progress import RunProgress
from harness.models.loading import load_model
from harness.training import masters
from harness.training import train as training
from harness.training.loaded import Models
from harness.training.masters import MasterAdamW, needs_masters
from harness.training.trainer import DistillationTrainer
from tests.training.test_step import STEPS, config_for, run

ADAMW = {"lr": 5e-6, "betas": (0.9, 0.999), "weight_decay": 0.1}  # the paper's rate
SIZES = [(400, 300), (300,), (7, 11)]


def weights(dtype: torch.dtype) -> list[torch.nn.Parameter]:
    """The same values in every type: those that bfloat16 can hold, of a trained model's size."""
    generator = torch.Generator().manual_seed(0)
    values = [(0.02 * torch.randn(size, generator=generator)).bfloat16() for size in SIZES]
    return [torch.nn.Parameter(value.to(dtype)) for value in values]


def gradients(step: int) -> list[torch.Tensor]:
    """A direction that persists and noise of the same size, as bfloat16 gradients."""
    constant, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(100 + step)
    drawn = [torch.randn(s, generator=constant) + torch.randn(s, generator=noise) for s in SIZES]
    return [(1e-4 * gradient).bfloat16() for gradient in drawn]


def take_steps(parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        for parameter, gradient in zip(parameters, gradients(step), strict=True):
            parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()
        optimizer.zero_grad()


def flat(parameters: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in parameters])


def moved(dtype: torch.dtype, optimizer: type[torch.optim.Optimizer], steps: int = 100) -> torch.Tensor:
    """The update of all weights over some steps, of the masters where there are some."""
    parameters = weights(dtype)
    before = flat(parameters)
    made = optimizer(parameters, **ADAMW)
    take_steps(parameters, made, range(steps))
    if isinstance(made, MasterAdamW):
        held = [master for _, _, inner in made.buckets for master in inner.param_groups[0]["params"]]
        assert all(torch.equal(p.detach(), m.to(dtype)) for p, m in zip(parameters, held, strict=True))
        return flat(held) - before
    return flat(parameters) - before


def test_the_update_is_that_of_a_float32_run() -> None:
    """With masters to the last bit, the gradients being the same; plain AdamW on bfloat16 weights loses most of it."""
    expected = moved(torch.float32, torch.optim.AdamW)
    assert torch.equal(moved(torch.bfloat16, MasterAdamW), expected)
    plain = moved(torch.bfloat16, torch.optim.AdamW)
    assert (plain == 0).double().mean() > 0.5  # weights that never moved


def test_the_fused_kernel_takes_masters_too() -> None:
    """As on a GPU (training.arguments): the same update but for rounding in float32."""
    updates = []
    for fused in (False, True):
        parameters = weights(torch.bfloat16)
        before = flat(parameters)
        optimizer = MasterAdamW(parameters, **ADAMW, fused=fused)
        take_steps(parameters, optimizer, range(20))
        updates.append(flat([m for _, _, inner in optimizer.buckets for m in inner.param_groups[0]["params"]]) - before)
    torch.testing.assert_close(updates[1], updates[0], rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("numbers", [2**28, 300, 1])
def test_buckets_change_nothing(monkeypatch: pytest.MonkeyPatch, numbers: int) -> None:
    monkeypatch.setattr(masters, "BUCKET_NUMBERS", numbers)
    expected = moved(torch.float32, torch.optim.AdamW, steps=5)
    assert torch.equal(moved(torch.bfloat16, MasterAdamW, steps=5), expected)


def test_a_saved_run_goes_on_as_if_it_had_not_stopped() -> None:
    """Through torch.save, as the Trainer stores it, into an optimiser that begins from the rounded weights."""
    whole = weights(torch.bfloat16)
    take_steps(whole, MasterAdamW(whole, **ADAMW), range(6))
    first = weights(torch.bfloat16)
    optimizer = MasterAdamW(first, **ADAMW)
    take_steps(first, optimizer, range(3))
    stored = io.BytesIO()
    torch.save(optimizer.state_dict(), stored)
    stored.seek(0)
    second = copy.deepcopy(first)
    resumed = MasterAdamW(second, **ADAMW)
    resumed.load_state_dict(torch.load(stored, weights_only=True))
    take_steps(second, resumed, range(3, 6))
    assert torch.equal(flat(second), flat(whole))
    held = [master for _, _, inner in resumed.buckets for master in inner.param_groups[0]["params"]]
    assert {master.dtype for master in held} == {torch.float32}


def test_a_schedule_reaches_the_masters() -> None:
    """A rate of 0, which a schedule has set, moves nothing."""
    parameters = weights(torch.bfloat16)
    before = flat(parameters)
    optimizer = MasterAdamW(parameters, **ADAMW)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    take_steps(parameters, optimizer, range(1))
    assert torch.equal(flat(parameters), before)


def test_a_weight_without_a_gradient_stays() -> None:
    parameters = weights(torch.bfloat16)
    optimizer = MasterAdamW(parameters, **ADAMW)
    before = [p.detach().clone() for p in parameters]
    parameters[0].grad = gradients(0)[0] * 1e4
    optimizer.step()
    assert not torch.equal(parameters[0], before[0])
    assert all(torch.equal(p, b) for p, b in zip(parameters[1:], before[1:], strict=True))


def test_who_needs_masters() -> None:
    assert needs_masters(weights(torch.bfloat16)) and not needs_masters(weights(torch.float32))
    assert not needs_masters([p.requires_grad_(False) for p in weights(torch.bfloat16)])


def test_bfloat16_is_trained_with_masters_and_scored_again(random_pair: Path, tmp_path: Path, monkeypatch) -> None:
    """r is of the scoring pass, since the pass over the cache differs from it: the difference is a metric."""
    made: list[type] = []
    original = DistillationTrainer.create_optimizer

    def watched(self, *arguments):
        optimizer = original(self, *arguments)
        made.append(type(optimizer))
        return optimizer

    monkeypatch.setattr(DistillationTrainer, "create_optimizer", watched)
    _, rows = run(config_for(random_pair, tmp_path, OPD(), dtype="bfloat16"), tmp_path / "narrow")
    assert made == [MasterAdamW]
    assert len(rows) == STEPS and all(0 < row["mismatch/mean"] < row["mismatch/max"] < 0.5 for row in rows)
    _, rows = run(config_for(random_pair, tmp_path, OPD()), tmp_path / "wide")
    assert made[1:] == [torch.optim.AdamW] and all(row["mismatch/max"] == 0 for row in rows)


def test_a_bfloat16_run_that_was_stopped_ends_with_the_same_weights(random_pair: Path, tmp_path: Path) -> None:
    config = config_for(random_pair, tmp_path, OPD(), dtype="bfloat16")
    config = dataclasses.replace(config, engine=dataclasses.replace(config.engine, save_every=1))
    whole, _ = run(config, tmp_path / "whole")
    folder = tmp_path / "stopped"
    folder.mkdir()

    class StopsAtTwo(RunProgress):
        def step(self, step, row) -> None:
            if step == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(config, folder, StopsAtTwo(None, STEPS))
    training.train(config, folder, RunProgress(None, STEPS))
    again = load_model(str(folder / "checkpoint"), dtype="auto").state_dict()
    for name, value in whole.items():
        assert torch.equal(again[name].float(), value.float()), name


@pytest.mark.slow
def test_a_hundred_steps_on_given_text_move_bfloat16_as_float32(tmp_path: Path, monkeypatch) -> None:
    """On the teacher's stored text, since another rounding would draw other samples: what remains is the models' own
    arithmetic.
    """
    updates = [_update_of(dtype, tmp_path, monkeypatch) for dtype in ("float32", "bfloat16")]
    assert torch.nn.functional.cosine_similarity(*updates, dim=0) >= 0.999
    assert abs(updates[1].norm() / updates[0].norm() - 1) <= 0.01


def _update_of(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """What 100 steps of SeqKD at the paper's rate add to the shipped student's weights."""
    register_methods()
    options = ["setting=tiny_cpu", "method=seqkd", "hydra.mode=RUN", "evaluation=none", f"setting.dtype={dtype}"]
    options += ["setting.steps=100", "setting.learning_rate=5e-6", "setting.warmup_steps=0", f"results_dir={tmp_path}"]
    (config,) = planned_runs(options)
    assert isinstance(config, RunConfig) and isinstance(config.method, SeqKD)
    held: dict[str, torch.Tensor] = {}

    def keep(config: RunConfig, models: Models, trainer: DistillationTrainer, folder: Path) -> None:
        optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
        names = {id(parameter): name for name, parameter in models.student.named_parameters()}
        held.update((names[id(p)], p.detach()) for group in optimizer.param_groups for p in group["params"])
        for _, weights, inner in getattr(optimizer, "buckets", []):
            held.update(zip((names[id(w)] for w in weights), inner.param_groups[0]["params"], strict=True))

    monkeypatch.setattr(training, "save_final", keep)
    (tmp_path / dtype).mkdir()
    training.train(config, tmp_path / dtype, RunProgress(None, 100))
    start = load_model(config.setting.student).state_dict()
    return torch.cat([(value - start[name]).double().flatten() for name, value in sorted(held.items())])
