"""`python -m harness.training.rank_program JOB`: the program of one rank of a run (harness.training.ranks)."""

from __future__ import annotations

import pickle
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import distributed as dist

if TYPE_CHECKING:
    from harness.config.settings import RunConfig
from harness.training.ranks import ERROR_FILE, from_main, index, start


def follow(runs: Sequence[RunConfig]) -> None:
    """What a rank other than 0 does under `accelerate launch -m harness.run`: trains with rank 0, which does all the
    rest.
    """
    from harness.console.progress import RunProgress
    from harness.engines.checks import device_of
    from harness.training.job import empty_device
    from harness.training.train import train

    for run in runs:
        start(device_of(run))
        if run.method is not None and from_main(None):
            torch.set_num_threads(run.engine.threads)
            train(run, run.run_folder(), RunProgress(None, run.setting.steps))
            empty_device()  # for an evaluation on all GPUs, by rank 0


def main() -> None:
    """The program of one rank."""
    from harness.console.commands import quiet_libraries
    from harness.console.progress import RunProgress
    from harness.engines.checks import device_of
    from harness.training.train import train

    quiet_libraries()
    config, folder = pickle.loads(Path(sys.argv[1]).read_bytes())
    start(device_of(config))
    torch.set_num_threads(config.engine.threads)
    try:
        train(config, folder, RunProgress(folder / "progress.json" if index() == 0 else None, config.setting.steps))
    except Exception:
        (folder / ERROR_FILE.format(index())).write_text(traceback.format_exc())
        raise
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
