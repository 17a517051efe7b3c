"""The program of one rank: pushes a model that ranks share to an engine of the rank's own, which dies at bad moments
(tests/distributed/test_pushes.py).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from harness.rollout import RolloutRequest, Sampling, process
from harness.rollout.vllm import VLLMEngine
from harness.rollout.weights import InProcessWeights, is_sharded
from tests.conftest import random_model
from tests.rollout.fake_engine import digest
from tests.rollout.test_process import backend


def digests(model: nn.Module, factor: float) -> dict[str, str]:
    """Of all weights times a factor."""
    return {name: digest(weight * factor) for name, weight in model.named_parameters()}


def shared_by_ranks(kind: str) -> nn.Module:
    model = random_model(1)
    if kind == "ddp":
        return DistributedDataParallel(model)
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    assert is_sharded(model)
    return model


def main(kind: str, folder: Path) -> None:
    rank = dist.get_rank()
    folder.mkdir()
    whole, model = random_model(1), shared_by_ranks(kind)
    if rank == 1:
        (folder / "dies at load").touch()
    with backend(folder) as own:
        engine = VLLMEngine(own)
        weights = InProcessWeights(engine, model)
        weights.push(0)  # rank 1's engine dies of the first tensor, while rank 0 gathers on
        assert own.tell("told") == digests(whole, 1.0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2.0)
        weights.push(1)
        assert own.tell("told") == digests(whole, 2.0)
        dist.barrier()
        if rank == 0:  # dies between two pushes: nobody helps it to gather
            assert own.pid is not None
            os.killpg(own.pid, signal.SIGKILL)
            (rollout,) = engine.generate([RolloutRequest("p", (1, 2), seed=5)], Sampling(3))
            assert rollout.policy_version == 1 and rollout.completion_ids == (5, 6, 7)
            assert own.tell("told") == digests(whole, 2.0)
        dist.barrier()
    (folder / "right").touch()


if __name__ == "__main__":
    process.PROGRAM = "tests.rollout.fake_engine"
    dist.init_process_group("gloo")
    main(sys.argv[1], Path(sys.argv[2]) / f"rank{dist.get_rank()}")
    dist.destroy_process_group()
