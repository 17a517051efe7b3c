"""vLLM on every rank: two ranks with an engine each are one rank, whole weights and cut ones; servers that both use;
adapters.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.config.settings import RunConfig
from tests.distributed.test_ranks import Result, alone, config_for, on_ranks, result
from tests.vllm.conftest import processes_with

pytestmark = pytest.mark.vllm

BOUND = 1e-4  # weights, and nats between engine and trainer


def by_vllm(config: RunConfig, **engine: Any) -> RunConfig:
    """The same run in float32, which vLLM has, by these engines."""
    setting = dataclasses.replace(config.setting, dtype="float32")
    return dataclasses.replace(config, setting=setting, engine=dataclasses.replace(config.engine, **engine))


def assert_same(found: Result, expected: Result) -> None:
    """The same samples were drawn, whoever wrote them and beside whichever others; rounding is what is left."""
    for mine, truth in zip(found[1], expected[1], strict=True):
        assert mine["tokens/student"] == truth["tokens/student"]
        assert mine["mismatch/max"] < BOUND and truth["mismatch/max"] < BOUND
        assert mine["loss"] == pytest.approx(truth["loss"], abs=1e-3)
    for name, value in expected[0].items():
        torch.testing.assert_close(found[0][name], value, rtol=0, atol=BOUND, msg=name)


def test_two_ranks_with_a_vllm_each(random_pair: Path, tmp_path: Path) -> None:
    """TrOPD has the teacher's engine on each rank too, which writes the prefixes; OPD has it by transformers."""
    configs = {
        "opd": by_vllm(config_for(random_pair, tmp_path, "opd"), name="vllm", teacher="hf"),
        "tropd": by_vllm(config_for(random_pair, tmp_path, "tropd"), name="vllm"),
    }
    jobs = [(config, tmp_path / name) for name, config in configs.items()]
    on_ranks(2, "several_runs.py", jobs, tmp_path)
    for name, config in configs.items():
        assert_same(result(tmp_path / name), alone(config, tmp_path / f"{name}-alone"))
    assert processes_with(str(tmp_path)) == []


def test_a_student_that_fsdp2_has_cut(random_pair: Path, tmp_path: Path) -> None:
    """Every rank's engine gets the gathered weights, layer by layer; the program asserts that they lie in pieces."""
    config = by_vllm(config_for(random_pair, tmp_path, "opd"), name="vllm", teacher="hf")
    on_ranks(2, "fsdp2_trainer.py", [(config, tmp_path / "cut")], tmp_path)
    assert_same(result(tmp_path / "cut"), alone(config, tmp_path / "whole"))


def test_two_ranks_share_two_servers(random_pair: Path, tmp_path: Path) -> None:
    """Rank 0 starts them and pushes to both; each rank's prompts may be answered by either."""
    config = config_for(random_pair, tmp_path, "opd")
    server = dataclasses.replace(config.engine.server, devices=[0, 1])
    served = by_vllm(config, name="server", teacher="hf", server=server)
    on_ranks(2, "several_runs.py", [(served, tmp_path / "served")], tmp_path)
    one = by_vllm(config, name="vllm", teacher="hf")
    assert_same(result(tmp_path / "served"), alone(one, tmp_path / "alone"))
    assert sorted(path.name for path in (tmp_path / "served").glob("server-*")) == [
        "server-student.log",
        "server-student1.log",
    ]


def test_two_engines_that_overlap_are_in_processes_of_their_own(random_pair: Path, tmp_path: Path) -> None:
    """In one process they would share the forward pass's globals."""
    config = by_vllm(config_for(random_pair, tmp_path, "opd"), name="vllm")
    eager = dataclasses.replace(config, engine=dataclasses.replace(config.engine, overlap=True))
    assert_same(alone(eager, tmp_path / "eager"), alone(config, tmp_path / "serial"))
    assert len(list((tmp_path / "eager").glob("engine-*-0.log"))) == 2


def test_adapters_are_merged_into_what_is_pushed(random_pair: Path, tmp_path: Path) -> None:
    """After every update the engine's log-probs are those of the base and the adapters together."""
    pytest.importorskip("peft")
    config = by_vllm(config_for(random_pair, tmp_path, "opd"), name="vllm", teacher="hf")
    config = dataclasses.replace(config, setting=dataclasses.replace(config.setting, lora_rank=4, learning_rate=3e-2))
    _, rows = alone(config, tmp_path / "lora")
    assert max(row["mismatch/max"] for row in rows) < BOUND
    assert abs(rows[-1]["reward/q50"] - rows[0]["reward/q50"]) > 0.05  # another policy by then
