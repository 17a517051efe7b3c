"""Brings the trainer's weights into a rollout engine after every update: three ways behind `WeightSync`, one for each
place where the engine can be.

    in_process   the tensors are handed over; the engine copies them
    disk         a safetensors file is written and read; slow, simple, and the oracle of the other two
    transfer     vLLM's own weight transfer (NCCL between GPUs, CUDA IPC on one): to a server

After each, the tied head is repaired and the prefix cache is emptied (harness.rollout.worker says why): nothing would
fail without that, the engine would just go on with parts of an older policy.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from harness.models.adapters import merged_weights
from harness.rollout.hf import HFEngine
from harness.rollout.vllm import NOT_PUSHED, EngineFailure, VLLMEngine

CHECKED_PUSHES = 2  # the first brings what the engine has read from disk itself, the second the first update


class WeightSync(Protocol):
    """Keeps an engine's weights those of the trainer."""

    def push(self, policy_version: int) -> None:
        """Makes the engine sample from the trainer's weights as they are now, and call them `policy_version`."""
        ...


class LiveWeights:
    """For an engine that samples from the trainer's own tensors."""

    def __init__(self, engine: HFEngine) -> None:
        self._engine = engine

    def push(self, policy_version: int) -> None:
        """See WeightSync."""
        self._engine.policy_version = policy_version


class PushedWeights(ABC):
    """For an engine with a copy of the weights. A version that the engine has already is not pushed again."""

    def __init__(self, engine: VLLMEngine, model: PreTrainedModel) -> None:
        self.engine, self.model = engine, model
        engine.backend.after_restart.append(self._push_again)

    @abstractmethod
    def send(self) -> None:
        """Replaces the engine's weights."""

    def push(self, policy_version: int) -> None:
        """See WeightSync."""
        if self.engine.policy_version == policy_version:
            return
        self.engine.policy_version = NOT_PUSHED  # until all of it is there
        try:
            self._refresh()
        except EngineFailure as failure:
            self.engine.backend.recover(failure)
            self._refresh()
        self.engine.policy_version = policy_version

    def _refresh(self) -> None:
        self.send()
        self.engine.backend.reset_prefix_cache()

    def _push_again(self) -> None:
        """After a restart: the engine has read its source; a version that had been pushed is brought again."""
        if self.engine.policy_version != NOT_PUSHED:
            self._refresh()


class InProcessWeights(PushedWeights):
    """Hands the tensors to an engine in this process."""

    def send(self) -> None:
        """See PushedWeights."""
        self.engine.backend.tell("harness_load", weights=named_weights(self.model))


class DiskWeights(PushedWeights):
    """Writes a file that the engine reads; a server must see the same file system."""

    def __init__(self, engine: VLLMEngine, model: PreTrainedModel, folder: Path) -> None:
        super().__init__(engine, model)
        self.folder = folder.resolve()

    def send(self) -> None:
        """See PushedWeights."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / ".writing"
        save_file({name: weight.contiguous() for name, weight in named_weights(self.model)}, temporary)
        os.replace(temporary, self.folder / "model.safetensors")
        self.engine.backend.tell("harness_load", path=str(self.folder))

    def clear(self) -> None:
        """Removes the file."""
        shutil.rmtree(self.folder, ignore_errors=True)


class TransferWeights(PushedWeights):
    """Sends the weights by vLLM's own transfer API (vllm.distributed.weight_transfer).

    `client` is vLLM's VLLMWeightSyncClient, `init_info` its TrainerInitInfo, which names the backend. Connects at the
    first push, and again after a restart.
    """

    def __init__(self, engine: VLLMEngine, model: PreTrainedModel, client: Any, init_info: Callable[[], Any]) -> None:
        super().__init__(engine, model)
        self._client, self._init_info = client, init_info
        self._sender: Any = None
        engine.backend.after_restart.insert(0, self._disconnect)

    def send(self) -> None:
        """See PushedWeights."""
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

        if self._sender is None:
            self._sender = WeightTransferTrainerFactory.trainer_init(
                self._init_info(), client=self._client, source=_source_of(self.model)
            )
        self._sender.send_weights()
        self.engine.backend.tell("harness_retie")

    def _push_again(self) -> None:
        super()._push_again()
        self._disconnect()  # of a pool's servers it went to the new one alone; the next push connects to all

    def _disconnect(self) -> None:
        self._sender = None


class CheckedWeights:
    """Runs a self-check after the first pushes of another WeightSync, once for each version."""

    def __init__(self, weights: WeightSync, check: Callable[[int], None]) -> None:
        self._weights, self._check = weights, check
        self._checked: set[int] = set()  # versions

    def push(self, policy_version: int) -> None:
        """See WeightSync."""
        self._weights.push(policy_version)
        if policy_version not in self._checked and len(self._checked) < CHECKED_PUSHES:
            self._checked.add(policy_version)
            self._check(policy_version)


def named_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Every parameter by its name in a checkpoint, adapters merged into it; a tied head is the embedding's and does not
    come twice. Sharded ones are gathered.
    """
    with torch.no_grad():
        for name, weight in merged_weights(model):
            gather = getattr(weight, "full_tensor", None)
            yield name, (gather() if gather is not None else weight).detach()


def _source_of(model: PreTrainedModel) -> Any:
    """`named_weights` as vLLM's transfer takes them."""
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource

    class NamedWeights(WeightSource):  # vLLM's ModuleSource, but for adapters
        def metadata(self) -> list[Any]:
            return [ParamMeta(name, weight.dtype, tuple(weight.shape)) for name, weight in named_weights(model)]

        def __iter__(self) -> Iterator[tuple[str, Tensor]]:
            return named_weights(model)

    return NamedWeights()
