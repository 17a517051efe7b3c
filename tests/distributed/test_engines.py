"""Ranks with an engine each, in a process of its own, are one rank that samples from its own weights: with an engine
that is transformers inside, in float64, to 1e-9.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from harness.config.settings import RunConfig
from harness.engines import backends
from harness.rollout import process
from tests.distributed.test_ranks import Result, alone, config_for, on_ranks, result

pytestmark = pytest.mark.slow

PROGRAM = "tests.distributed.engine_by_transformers"


def configs(random_pair: Path, root: Path) -> dict[str, RunConfig]:
    """OPD, TrOPD with the teacher's prefixes, and OPD of adapters alone."""
    found = {name: config_for(random_pair, root, name) for name in ("opd", "tropd")}
    lora = dataclasses.replace(found["opd"].setting, lora_rank=4, learning_rate=1e-2)
    return {**found, "lora": dataclasses.replace(found["opd"], setting=lora)}


def with_engines(config: RunConfig) -> RunConfig:
    """What would be vLLM writes; the teacher is scored as it is without."""
    return dataclasses.replace(config, engine=dataclasses.replace(config.engine, name="vllm", teacher="hf"))


def assert_same(found: Result, expected: Result) -> None:
    """Weights and what was written; the log-probs are the scoring pass's here and the sampling pass's there."""
    for name, value in expected[0].items():
        torch.testing.assert_close(found[0][name], value, rtol=0, atol=1e-9, msg=name)
    for mine, truth in zip(found[1], expected[1], strict=True):
        assert mine["tokens/student"] == truth["tokens/student"]
        assert mine["loss"] == pytest.approx(truth["loss"], rel=1e-9, abs=1e-9)
        assert 0 <= mine["mismatch/max"] < 1e-9


@pytest.mark.parametrize("program", ["several_runs.py", "fsdp2_trainer.py"])
def test_two_ranks_with_an_engine_each(
    random_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """Whole weights (DDP), and weights that FSDP2 has cut over the ranks; adapters are merged into what is pushed.

    Where the teacher writes prefixes, one rank has such an engine too: transformers draws what follows a prefix from
    another place of its stream than an engine that takes it for a part of the prompt.
    """
    monkeypatch.setenv("ENGINE_PROGRAM", PROGRAM)
    monkeypatch.setattr(process, "PROGRAM", PROGRAM)
    monkeypatch.setattr(backends, "needs_process", lambda *_: True)
    jobs = {name: (with_engines(config), tmp_path / name) for name, config in configs(random_pair, tmp_path).items()}
    on_ranks(2, program, list(jobs.values()), tmp_path)
    for name, config in configs(random_pair, tmp_path).items():
        one = with_engines(config) if name == "tropd" else config
        assert_same(result(jobs[name][1]), alone(one, tmp_path / f"{name}-alone"))
        logs = sorted(path.name for path in jobs[name][1].glob("engine-*"))
        assert logs == ["engine-student-0.log", "engine-student-1.log"]
