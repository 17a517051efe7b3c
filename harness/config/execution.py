"""How the work is done: Execution, the record of conf/engine/, and what its keys were called once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError

DEVICE = re.compile(r"cpu|cuda(:[0-9]{1,3})?")
RENAMED = {  # a key of an earlier day -> what to give in its place
    "engine.vllm.teacher": "engine.teacher=hf (false) or leave it out (true)",
    "engine.server.url": "engine.server.urls=[…]",
    "engine.server.teacher_url": "engine.server.teacher_urls=[…]",
}


@dataclass(frozen=True)
class VLLMOptions:
    """How vLLM is used, in process or as a server; conf/engine/hf.yaml says more of each."""

    weight_sync: str | None  # in_process | disk | transfer; None: in_process, and disk to a server
    transfer_backend: str  # nccl | ipc, of weight_sync=transfer
    kv_cache_gib: float | None  # of each engine; None: from lengths, max_sequences and the card (engines.caches)
    max_sequences: int  # decoded side by side
    max_logprobs: int  # most that a position may be asked for
    eager: bool | None  # no torch.compile, no CUDA graphs; None: on a CPU only
    sleep: bool  # in process, on a GPU: an engine's memory is freed between two uses
    evaluation_engines: int | None  # side by side in an evaluation; None: one per visible GPU, on a CPU one


@dataclass(frozen=True)
class ServerOptions:
    """Of engines behind `vllm serve`."""

    urls: list[str]  # of servers that run already, with the student; empty: they are started on this machine
    teacher_urls: list[str]  # likewise, with the teacher
    devices: list[int]  # GPUs of servers that are started, one each; empty: one, on engine.device
    teacher_devices: list[int]  # likewise, with the teacher
    start_limit_s: float  # until a server, or an engine in a process of its own, must be ready
    time_limit_s: float  # for one answer, apart from the tokens that are written (rollout.server.SECONDS_PER_TOKEN)


@dataclass(frozen=True)
class Execution:
    """How the work is done; changes nothing of the result beyond rounding, and is not part of any hash. Defaults:
    conf/engine/.
    """

    name: str  # who writes completions: hf | vllm | server
    teacher: str | None  # who scores the teacher, likewise; None: as name
    evaluation: str | None  # who draws the samples of an evaluation, likewise; None: as name
    device: str  # auto | cpu | cuda
    threads: int  # torch threads of one run
    # prompts in one forward and backward pass; a multiple of these makes a step; None: what memory holds
    # (planning.micro_batches)
    micro_batch_prompts: int | None
    save_every: int  # steps between two resumable checkpoints
    report_to: list[str]  # trackers, by the Trainer's names: tensorboard, wandb, trackio, …
    gradient_checkpointing: bool  # activations are computed again in the backward pass instead of kept
    teacher_device: str | None  # where a teacher by transformers scores, by torch's name (cuda:1, cpu); None: device
    # completions that transformers decodes side by side: the size of its cache; None: what memory holds
    # (engines.caches)
    rows_per_batch: int | None
    overlap: bool  # completions are scored while others are still being written; the same numbers
    vllm: VLLMOptions  # of the engines vllm and server
    server: ServerOptions  # of the engine server

    def __post_init__(self) -> None:
        for key, name in (("device", self.device), ("teacher_device", self.teacher_device)):
            if name is not None and not (DEVICE.fullmatch(name) or (key, name) == ("device", "auto")):
                raise UserError(
                    f"engine.{key}={name!r}: must be {'auto, ' * (key == 'device')}cpu, cuda or cuda:<number>."
                )

    def who(self, role: str) -> str:
        """Who works in a role: hf, vllm or server. Roles: "student" (writes completions), "teacher" (scores it and has
        it write), "evaluation" (draws samples of a stored checkpoint).
        """
        chosen = {"student": self.name, "teacher": self.teacher, "evaluation": self.evaluation}
        return chosen[role] or self.name

    def in_words(self) -> str:
        """Who writes, and who scores the teacher and evaluates where that is another."""
        others = [f"{role} {self.who(role)}" for role in ("teacher", "evaluation") if self.who(role) != self.name]
        return f"{self.name} ({', '.join(others)})" if others else self.name


def renamed(key: str) -> str | None:
    """The sentence for a key that has another name today; None for every other key."""
    return f"{key} is no key any more; give {RENAMED[key]}." if key in RENAMED else None


def refuse_renamed(values: Mapping[str, Any], where: str) -> None:
    """UserError for a key of an earlier day among those of a record that stands at `where`."""
    for key in values:
        if sentence := renamed(f"{where}.{key}"):
            raise UserError(sentence)
