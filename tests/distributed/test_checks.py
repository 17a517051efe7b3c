"""What ranks are told before they start, and what they cannot do."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import accelerate
import pytest

from harness.config.methods import register_methods
from harness.config.settings import CONF_DIR
from harness.config.sweep import planned_runs
from harness.errors import UserError
from harness.training import ranks
from harness.training.checks import check_execution

TWO = ("launch.num_processes=2", "engine.micro_batch_prompts=1")


def check(*arguments: str) -> None:
    register_methods()
    check_execution(planned_runs(["hydra.mode=RUN", "method=opd", *arguments]))


@pytest.mark.parametrize(
    ("device", "backend"),
    [("cpu", {}), ("cuda", {"backend": "cuda:nccl,cpu:gloo"}), ("cuda:0", {"backend": "cuda:nccl,cpu:gloo"})],
)
def test_ranks_wait_long_and_tell_objects_by_the_cpu(
    monkeypatch: pytest.MonkeyPatch, device: str, backend: dict[str, str]
) -> None:
    """NCCL's ten minutes are shorter than an evaluation by rank 0."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(accelerate, "PartialState", lambda **given: told.append(given))
    monkeypatch.setenv("WORLD_SIZE", "2")
    ranks.start(device)
    assert told == [{"cpu": device == "cpu", "timeout": ranks.WAIT_LIMIT, **backend}]
    assert datetime.timedelta(days=1) < ranks.WAIT_LIMIT


def test_one_teacher_device_is_not_for_several_ranks() -> None:
    check("engine.teacher_device=cuda:1")
    check(*TWO, "engine.teacher_device=cpu")
    with pytest.raises(
        UserError, match=r"engine\.teacher_device=cuda:1: the teachers of all ranks would be on that one"
    ):
        check(*TWO, "engine.teacher_device=cuda:1")


def test_servers_of_one_machine_are_not_for_ranks_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.engines.checks.check_installed", lambda *_: None)
    check(*TWO, "engine=server")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    with pytest.raises(UserError, match=r"engine\.teacher=server would start .* engine\.server\.teacher_urls="):
        check(*TWO[1:], "engine=server", "engine.server.urls=[http://a:1]")
    check(*TWO[1:], "engine=server", "engine.server.urls=[http://a:1]", "engine.teacher=vllm")


def test_deepspeed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(*TWO, f"launch.accelerate_config={CONF_DIR}/accelerate/fsdp2.yaml")
    file = tmp_path / "zero3.yaml"
    file.write_text("distributed_type: DEEPSPEED\n")
    with pytest.raises(UserError, match=r"^DeepSpeed is not supported: .*fsdp2\.yaml"):
        check(*TWO, f"launch.accelerate_config={file}")
    with pytest.raises(UserError, match="there is no such file"):
        check(*TWO, f"launch.accelerate_config={tmp_path}/none.yaml")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")  # by `accelerate launch` around the command
    with pytest.raises(UserError, match="DeepSpeed is not supported"):
        check(*TWO)
