"""The program of a rank: several runs by the real Trainer on a student that FSDP2 shards
(tests/distributed/test_ranks.py).
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from pathlib import Path

import torch
from accelerate import state
from accelerate.utils import DistributedType
from torch import distributed as dist
from torch.distributed.tensor import DTensor

from harness.console.progress import RunProgress
from harness.rollout import process
from harness.training import ranks
from harness.training.train import train
from harness.training.trainer import DistillationTrainer

# What `accelerate launch --config_file conf/accelerate/fsdp2.yaml` says to its ranks.
ENVIRONMENT = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "FSDP_SYNC_MODULE_STATES": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
    "ACCELERATE_MIXED_PRECISION": "no",
}


def allow_fsdp_on_cpus() -> None:
    """accelerate shards over accelerators alone, and makes DDP of CPU ranks; torch itself shards over gloo as well."""
    os.environ.update(ENVIRONMENT)
    original = state.AcceleratorState.__init__

    def patched(self, *arguments, fsdp_plugin=None, **keywords):
        original(self, *arguments, fsdp_plugin=fsdp_plugin, **keywords)
        if self.distributed_type == DistributedType.MULTI_CPU and fsdp_plugin is not None:
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin
            state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    state.AcceleratorState.__init__ = patched


def check_shards() -> None:
    """Every step begins with all weights in pieces, of a type that keeps small updates. With STOP_AFTER_STEP in the
    environment all ranks die once this step's checkpoint is complete.
    """
    original = DistillationTrainer.get_batch_samples
    last = int(os.environ.get("STOP_AFTER_STEP", "-1"))

    def watched(self, *arguments):
        parameters = list(self.model_wrapped.parameters())
        assert all(isinstance(p, DTensor) and p.dtype in (torch.float32, torch.float64) for p in parameters)
        if self.state.global_step == last:
            dist.barrier()
            raise RuntimeError("stopped on purpose")
        return original(self, *arguments)

    DistillationTrainer.get_batch_samples = watched


def main() -> None:
    allow_fsdp_on_cpus()
    check_shards()
    process.PROGRAM = os.environ.get("ENGINE_PROGRAM", process.PROGRAM)
    ranks.start("cpu")
    torch.set_num_threads(1)
    for config, folder in pickle.loads(Path(sys.argv[1]).read_bytes()):
        try:
            train(config, folder, RunProgress(None, config.setting.steps))
        except Exception:
            traceback.print_exc()
            os._exit(1)  # the other rank waits for this one
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
