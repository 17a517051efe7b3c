"""The program of one rank: trains several pickled runs one after the other in one process group."""

import os
import pickle
import sys
from pathlib import Path

import torch
from torch import distributed as dist

from harness.console.progress import RunProgress
from harness.rollout import process
from harness.training import ranks
from harness.training.train import train


def stop_after(step: str) -> None:
    """Every rank dies once this step's checkpoint is complete, as at an interruption."""
    from harness.training.trainer import DistillationTrainer

    original = DistillationTrainer.get_batch_samples

    def dies(self, *arguments):
        if self.state.global_step == int(step):
            dist.barrier()
            raise RuntimeError("stopped on purpose")
        return original(self, *arguments)

    DistillationTrainer.get_batch_samples = dies


if __name__ == "__main__":
    if "STOP_AFTER_STEP" in os.environ:
        stop_after(os.environ["STOP_AFTER_STEP"])
    process.PROGRAM = os.environ.get("ENGINE_PROGRAM", process.PROGRAM)
    ranks.start("cpu")
    torch.set_num_threads(1)
    for config, folder in pickle.loads(Path(sys.argv[1]).read_bytes()):
        train(config, folder, RunProgress(None, config.setting.steps))
        dist.barrier()
    dist.destroy_process_group()
