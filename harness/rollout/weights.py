"""Brings the trainer's weights into a rollout engine after every update: three ways behind `WeightSync`, one for each
place where the engine can be.

    in_process   the tensors are handed over, chunk by chunk where the engine has a process of its own; it copies them
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
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from harness.models.adapters import merged_weights
from harness.rollout.hf import HFEngine
from harness.rollout.pool import PoolBackend
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
        self.engine: VLLMEngine = engine
        self.model: PreTrainedModel = model.module if isinstance(model, DistributedDataParallel) else model
        engine.backend.after_restart.append(self._push_again)

    @abstractmethod
    def send(self) -> None:
        """Replaces the engine's weights."""

    def send_again(self) -> None:
        """As `send`, without the help of other ranks: the weights are those that it sent, or tried to send, last."""
        self.send()

    def push(self, policy_version: int) -> None:
        """See WeightSync."""
        if self.engine.policy_version == policy_version:
            return
        self.engine.policy_version = NOT_PUSHED  # until all of it is there
        try:
            self._refresh(self.send)
        except EngineFailure as failure:
            self.engine.backend.recover(failure)
            self._refresh(self.send_again)
        self.engine.policy_version = policy_version

    def _refresh(self, send: Callable[[], None]) -> None:
        send()
        self.engine.backend.reset_prefix_cache()

    def _push_again(self) -> None:
        """After a restart: the engine has read its source; a version that had been pushed is brought again."""
        if self.engine.policy_version != NOT_PUSHED:
            self._refresh(self.send_again)


class InProcessWeights(PushedWeights):
    """Hands the tensors to an engine in this process, or in one of its own on this machine (ProcessBackend).

    A sharded student is gathered tensor by tensor, which takes all ranks, and each rank's engine gets all of it. A
    restart is the affair of one rank: so what was gathered is kept in main memory until the next push.
    """

    def __init__(self, engine: VLLMEngine, model: PreTrainedModel) -> None:
        super().__init__(engine, model)
        self._kept: list[tuple[str, Tensor]] | None = None  # of a sharded student

    def send(self) -> None:
        """See PushedWeights."""
        self._kept = [] if is_sharded(self.model) else None
        weights = self._weights()
        try:
            self.engine.backend.tell("harness_load", weights=weights)
        finally:
            for _ in weights:  # whatever became of our engine: the other ranks gather on
                pass

    def send_again(self) -> None:
        """See PushedWeights."""
        weights = named_weights(self.model) if self._kept is None else iter(self._kept)
        self.engine.backend.tell("harness_load", weights=weights)

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        for name, weight in named_weights(self.model):
            if self._kept is not None:
                self._kept.append((name, weight.to("cpu", copy=True)))
            yield name, weight


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
        self.send_again()

    def send_again(self) -> None:
        """See PushedWeights: the file is there."""
        self.engine.backend.tell("harness_load", path=str(self.folder))

    def clear(self) -> None:
        """Removes the file."""
        shutil.rmtree(self.folder, ignore_errors=True)


class TransferWeights(PushedWeights):
    """Sends the weights by vLLM's own transfer API (vllm.distributed.weight_transfer).

    `client` is vLLM's VLLMWeightSyncClient, or a PoolBackend; `init_info` its TrainerInitInfo, which names the backend
    and, for NCCL, the size of the group: the sender and its receivers. Connects at the first push, and again after a
    restart.
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
            pooled = isinstance(self._client, PoolBackend)  # whose members are others while it replaces one
            client = self._client.transfer_client() if pooled else self._client
            self._sender = WeightTransferTrainerFactory.trainer_init(
                self._init_info(), client=client, source=_source_of(self.model)
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


def is_sharded(model: PreTrainedModel) -> bool:
    """Whether ranks hold pieces of the weights now: FSDP2, outside of harness.training.ranks.whole_weights."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


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
