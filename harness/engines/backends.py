"""Which running vLLM does the work of a role: in this process, in processes of its own, or behind servers.

one rank, vllm          in this process; in one of its own where that form conflicts (`needs_process`)
several ranks, vllm     a process for every rank, on the rank's device, with the prompts of the rank
evaluation, vllm        a process on every GPU, side by side; in this process where there is one
server                  servers that all ranks use; rank 0 starts them, replaces them and sends weights
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from harness.config.execution import Execution
from harness.engines import group
from harness.engines.caches import room_alone, room_beside, vllm_cache_bytes
from harness.engines.checks import device_name, urls_of, weight_sync_of
from harness.files import locate
from harness.models.contexts import context_length_of
from harness.models.loading import load_config
from harness.models.sizes import BYTES, cached_numbers_of, model_size
from harness.rollout.pool import PoolBackend
from harness.rollout.process import ProcessBackend
from harness.rollout.server import ServerBackend, ServerProcess
from harness.rollout.vllm import EngineOptions, InProcessBackend

if TYPE_CHECKING:
    from harness.rollout.vllm import Backend


@dataclass(frozen=True)
class Source:
    """A model as it is stored."""

    name: str  # folder or Hub id
    revision: str | None
    dtype: str  # of the weights


@dataclass(frozen=True)
class Place:
    """Where an engine works."""

    device: int | None  # the GPU, as this process counts them; None: a CPU
    alike: int | None = None  # engines of its role that share the GPU with nobody else; None: others are on it too


@contextlib.contextmanager
def open_backend(execution: Execution, source: Source, longest: int, folder: Path, role: str) -> Iterator[Backend]:
    """The engine or engines of a role, for as long as the context lasts.

    Args:
        longest: positions of a prompt and its completion, at most.
        folder: for logs.
        role: "student", "teacher" or "evaluation"; an evaluation is the work of one process.
    """
    if execution.who(role) == "server":
        with _servers(execution, source, longest, folder, role=role) as servers:
            yield servers
        return
    places = [Place(own_device(execution))] if role != "evaluation" else evaluation_places(execution)
    started = [engine_options(execution, source, longest, role, place=place) for place in places]
    if len(places) == 1 and not needs_process(execution, role, places[0]):
        with InProcessBackend(started[0], execution.threads) as backend:
            yield backend
        return
    threads, limit_s = max(1, execution.threads // len(places)), execution.server.start_limit_s
    logs = [folder / f"engine-{role}-{group.index() + number}.log" for number in range(len(places))]
    members = [
        ProcessBackend(options, threads, place.device, log=log, start_limit_s=limit_s)
        for options, place, log in zip(started, places, logs, strict=True)
    ]
    with members[0] if len(members) == 1 else PoolBackend(members) as backend:
        yield backend


def needs_process(execution: Execution, role: str, place: Place) -> bool:
    """Whether a single vLLM cannot be in this process.

    Beside ranks, whose process group it would take for its own; where it is not to work on the first GPU; and as one of
    two that sleep (the allocator that does is one of the process) or that work at once (a forward pass finds its batch
    in a global).
    """
    two = role != "evaluation" and execution.who("student") == execution.who("teacher") == "vllm"
    return group.count() > 1 or bool(place.device) or (two and (execution.vllm.sleep or execution.overlap))


def own_device(execution: Execution) -> int | None:
    """The GPU of this rank; None on a CPU."""
    kind, _, number = device_name(execution).partition(":")
    if kind == "cpu":
        return None
    return int(number) if number else torch.cuda.current_device()


def evaluation_places(execution: Execution) -> list[Place]:
    """Of the engines of an evaluation: engine.vllm.evaluation_engines, or one on every GPU that this process sees (on
    the one that engine.device names).
    """
    wanted, own = execution.vllm.evaluation_engines, own_device(execution)
    if own is None:
        return [Place(None)] * (wanted or 1)
    visible = [own] if ":" in device_name(execution) else list(range(torch.cuda.device_count()))
    devices = [visible[number % len(visible)] for number in range(wanted or len(visible))]
    return [Place(device, alike=devices.count(device)) for device in devices]


def server_places(execution: Execution, role: str) -> list[Place]:
    """Of the servers that are started for a role. One that has a GPU for itself is alone on it."""
    server, own = execution.server, own_device(execution)
    sides = {"teacher": server.teacher_devices, "student": server.devices}
    side = "teacher" if role == "teacher" else "student"
    wanted = sides[side]
    if own is None:
        return [Place(None)] * (len(wanted) or 1)
    if not wanted:
        return [Place(own, alike=1 if role == "evaluation" else None)]
    others = set() if role == "evaluation" else {*range(own, own + group.on_this_machine())}
    if role != "evaluation":
        others |= {number for name, numbers in sides.items() if name != side for number in numbers}
    return [Place(number, alike=None if number in others else wanted.count(number)) for number in wanted]


@contextlib.contextmanager
def _servers(execution: Execution, source: Source, longest: int, folder: Path, role: str) -> Iterator[Backend]:
    """Running servers or started ones. With several ranks all of them use the same, and rank 0 owns them."""
    server, urls = execution.server, urls_of(execution, role)
    limits = (server.start_limit_s, server.time_limit_s)
    together = group.count() > 1 and role != "evaluation"
    if together and group.index() > 0:
        urls = group.from_main(urls)  # rank 0 says so when they answer
        with PoolBackend([ServerBackend(None, url, *limits) for url in urls], owner=False) as pool:
            yield pool
        return
    members = [ServerBackend(None, url, *limits) for url in urls]
    for number, place in enumerate(server_places(execution, role) if not urls else []):
        options = engine_options(execution, source, longest, role, place=place)
        log = folder / f"server-{role}{number or ''}.log"
        members.append(ServerBackend(ServerProcess(options, execution.threads, log, place.device), None, *limits))
    with members[0] if len(members) == 1 and not together else PoolBackend(members) as backend:
        if together:
            group.from_main([member.url for member in members])
        yield backend


def engine_options(execution: Execution, source: Source, longest: int, role: str, place: Place) -> EngineOptions:
    """How the engine of a role is started at a place."""
    options, config = execution.vllm, load_config(source.name, source.revision)
    length = min(longest, context_length_of(config))
    dtype = source.dtype if source.dtype != "auto" else str(config.dtype or "float32").removeprefix("torch.")
    transfers = role == "student" and execution.name == "server" and weight_sync_of(execution) == "transfer"
    on_cpu = place.device is None
    room = _room(source, dtype, place)
    return EngineOptions(
        source=locate(source.name),
        revision=source.revision,
        dtype=dtype,
        kv_cache_bytes=vllm_cache_bytes(options, cached_numbers_of(config), dtype, length, room=room),
        max_sequences=options.max_sequences,
        max_logprobs=options.max_logprobs,
        eager=on_cpu if options.eager is None else options.eager,
        on_cpu=on_cpu,
        max_length=length,
        transfer_backend=options.transfer_backend if transfers else None,
        sleeps=options.sleep and not on_cpu and execution.who(role) == "vllm" and role != "evaluation",
    )


def _room(source: Source, dtype: str, place: Place) -> int:
    """Bytes for the cache of an engine at a place."""
    if place.device is None:
        return room_beside(None)
    free, card = torch.cuda.mem_get_info(place.device)
    if place.alike is None:
        return room_beside(card)
    size = model_size(source.name, source.revision)
    assert size is not None  # its configuration has just been read
    return room_alone(free, BYTES[dtype] * size.parameters, place.alike)
