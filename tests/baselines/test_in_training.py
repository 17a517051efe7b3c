"""Every method found takes real steps on random tiny models; cutting a step into micro-batches changes nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from baselines.aopd import AOPD
from baselines.gkd import GKD
from baselines.tropd_scalar import TrOPDScalar
from harness.config.methods import find_methods, register_methods
from harness.config.settings import CONF_DIR, RunConfig
from harness.console.progress import RunProgress
from harness.files import ROOT
from harness.results.record import read_metrics
from harness.training.job import train
from harness.types import Method

STEPS, PROMPTS = 2, 4
LOSSES = ("loss", "loss/policy", "loss/divergence", "loss/imitation", "grad_norm")


@pytest.fixture(scope="module")
def base(random_pair: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run in float64 on a few of the shipped prompts (they have references); composed once, which takes a while."""
    folder = tmp_path_factory.mktemp("base")
    lines = (ROOT / "harness" / "tiny" / "prompts.jsonl").read_text().splitlines(keepends=True)
    (folder / "prompts.jsonl").write_text("".join(lines[:6]))
    register_methods()
    overrides = [
        "setting=tiny_cpu",
        "evaluation=none",
        f"results_dir={folder}",
        f"setting.student={random_pair / 'student'}",
        f"setting.teacher={random_pair / 'teacher'}",
        f"setting.prompts={folder / 'prompts.jsonl'}",
        "setting.dtype=float64",
        "setting.max_new_tokens=12",
        f"setting.steps={STEPS}",
        "setting.warmup_steps=0",
        f"setting.prompts_per_step={PROMPTS}",
    ]
    with initialize_config_dir(str(CONF_DIR), version_base=None):
        return RunConfig.from_hydra(compose("config", overrides=overrides))


def take_steps(base: RunConfig, method: Method, folder: Path, micro_batch_prompts: int) -> list[dict[str, Any]]:
    """Trains; returns the rows of metrics.jsonl."""
    engine = replace(base.engine, micro_batch_prompts=micro_batch_prompts)
    folder.mkdir()
    train(replace(base, method=method, engine=engine), folder, RunProgress(folder / "progress.json", STEPS))
    return read_metrics(folder)


@pytest.mark.parametrize("name", sorted(find_methods()))
def test_steps_are_finite(name: str, base: RunConfig, tmp_path: Path) -> None:
    rows = take_steps(base, find_methods()[name](), tmp_path / "run", PROMPTS // 2)
    assert len(rows) == STEPS
    for row in rows:
        assert all(math.isfinite(row[key]) for key in LOSSES)
        assert row["grad_norm"] > 0


@pytest.mark.parametrize(
    "method", [GKD(student_share=0.0), GKD(student_share=1.0), AOPD(), TrOPDScalar()], ids=lambda m: str(m)
)
def test_micro_batches_change_nothing(method: Method, base: RunConfig, tmp_path: Path) -> None:
    """For what the trainer's own tests do not cover: the whole vocabulary, either writer, rescaled
    and scalar credit.
    """
    whole = take_steps(base, method, tmp_path / "whole", PROMPTS)
    halves = take_steps(base, method, tmp_path / "halves", PROMPTS // 2)
    for row, other in zip(whole, halves, strict=True):
        assert [other[key] for key in LOSSES] == pytest.approx([row[key] for key in LOSSES], rel=1e-9, abs=1e-9)
    if isinstance(method, GKD):
        assert (whole[0]["tokens/student"] > 0) == (method.student_share == 1.0)
