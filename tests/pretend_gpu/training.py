"""The real `train()` on a pretended GPU: the Trainer and accelerate believe that they are on it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate.state
import pytest
import torch
import transformers

import harness.scoring.pieces
from harness.config.settings import RunConfig
from harness.console.progress import RunProgress
from harness.training.train import train
from harness.training.trainer import DistillationTrainer
from tests.pretend_gpu.device import PretendGPU

CARD_BYTES = 24 * 2**30


def believe(patch: pytest.MonkeyPatch, gpu: PretendGPU, device: str = "cuda:0") -> None:
    """Makes transformers.Trainer and accelerate place things on the device, and threads of the harness enter `gpu`."""
    own = property(lambda arguments: (arguments._setup_devices, torch.device(device))[1])
    patch.setattr(transformers.TrainingArguments, "device", own)
    original = accelerate.state.PartialState.__init__

    def init(self: Any, *arguments: Any, **keywords: Any) -> None:
        original(self, *arguments, **keywords)
        self._shared_state["device"] = torch.device(device)

    patch.setattr(accelerate.state.PartialState, "__init__", init)
    patch.setattr(torch.cuda, "get_rng_state", lambda device=None: torch.get_rng_state())  # the CPU draws for it
    patch.setattr(torch.cuda, "set_rng_state", lambda state, device=None: None)
    patch.setattr(torch.cuda, "mem_get_info", lambda device=None: (CARD_BYTES // 2, CARD_BYTES))
    patch.setattr(torch.cuda, "get_device_properties", lambda device=None: SimpleNamespace(total_memory=CARD_BYTES))

    class Threads(ThreadPoolExecutor):
        def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
            def inside() -> Any:
                with gpu.entered():
                    return function(*arguments, **keywords)

            return super().submit(inside)

    patch.setattr(harness.scoring.pieces, "ThreadPoolExecutor", Threads)


def train_on(config: RunConfig, folder: Path, device: str = "cuda:0") -> tuple[PretendGPU, list[Counter[str]]]:
    """Trains to the end; the GPU, and the waits of every step (from its rollouts to the next one's)."""
    folder.mkdir(parents=True, exist_ok=True)
    gpu, marks = PretendGPU(), []
    with pytest.MonkeyPatch.context() as patch:
        believe(patch, gpu, device)
        original = DistillationTrainer.get_batch_samples

        def watched(self: DistillationTrainer, *arguments: Any) -> Any:
            marks.append(Counter(gpu.waits))
            return original(self, *arguments)

        patch.setattr(DistillationTrainer, "get_batch_samples", watched)
        with gpu:
            train(config, folder, RunProgress(None, config.setting.steps))
    return gpu, [after - before for before, after in itertools.pairwise(marks)]
