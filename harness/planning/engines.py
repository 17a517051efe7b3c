"""What engines of vLLM hold: weights, caches, and how many sequences of full length a cache has room for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.config.settings import RunConfig
from harness.engines.caches import room_alone, room_beside, sequence_bytes, vllm_cache_bytes
from harness.engines.checks import urls_of
from harness.evaluation.checkpoint import longest_asked
from harness.models.sizes import BYTES, ModelSize


@dataclass(frozen=True)
class Held:
    """One engine of a role, in bytes."""

    weights: int
    cache: int
    sequences: int  # of full length that are decoded side by side
    length: int  # positions of such a sequence
    beside: bool  # on the trainer's device while it trains
    sleeps: bool  # and that only in its own phase

    @property
    def total(self) -> int:
        """What the engine takes."""
        return self.weights + self.cache


def held_by_vllm(
    run: RunConfig, student: ModelSize, teacher: ModelSize, length: int, memory_gib: float = math.inf
) -> dict[str, Held]:
    """By role, where vLLM or its server plays it on this hardware.

    Args: length: positions of a step's longest sequence; memory_gib: of a card; infinite: a CPU's.
    """
    found = {}
    sides = {"student": (student, length), "teacher": (teacher, length)}
    sides["evaluation"] = (student, longest_asked(run.evaluation))
    for role, (size, longest) in sides.items():
        idle = not longest or (run.method is None and role != "evaluation")
        if idle or run.engine.who(role) == "hf" or (run.engine.who(role) == "server" and urls_of(run.engine, role)):
            continue
        beside = role != "evaluation" and not _has_own_devices(run, role)
        weights = BYTES[run.setting.dtype] * size.parameters
        if memory_gib == math.inf:
            room = room_beside(None)
        else:
            card = int(memory_gib * 2**30)
            room = room_beside(card) if beside else room_alone(card, weights)
        longest = min(longest, size.context)
        one = sequence_bytes(size.cached_numbers, run.setting.dtype, longest)
        cache = vllm_cache_bytes(run.engine.vllm, size.cached_numbers, run.setting.dtype, longest, room=room)
        sequences = min(run.engine.vllm.max_sequences, cache // one)
        sleeps = beside and run.engine.vllm.sleep and run.engine.who(role) == "vllm"
        found[role] = Held(weights, cache, sequences, length=longest, beside=beside, sleeps=sleeps)
    return found


def _has_own_devices(run: RunConfig, role: str) -> bool:
    server = run.engine.server
    devices = server.teacher_devices if role == "teacher" else server.devices
    return run.engine.who(role) == "server" and bool(devices)
