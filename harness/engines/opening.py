"""Opens what `engine=` asks for: a rollout engine, a scorer, and the way in which the trainer's weights get into the
engine.

vLLM is imported only if the configuration asks for it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.config.settings import Execution, VLLMOptions
from harness.engines.caches import rows_per_batch, vllm_cache_bytes
from harness.engines.checks import device_name, server_options, vllm_options
from harness.errors import UserError
from harness.files import locate
from harness.models.adapters import adapter_in
from harness.models.contexts import context_length_of
from harness.models.loading import load_config, load_model
from harness.models.precision import use_precision
from harness.models.sizes import cached_numbers_of
from harness.rollout import RolloutEngine
from harness.rollout.hf import HFEngine
from harness.rollout.weights import DiskWeights, InProcessWeights, LiveWeights, TransferWeights, WeightSync
from harness.scoring import Scorer
from harness.scoring.hf import HFScorer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.rollout.vllm import Backend, EngineOptions


@dataclass(frozen=True)
class Source:
    """A model as it is stored."""

    name: str  # folder or Hub id
    revision: str | None
    dtype: str  # of the weights


@dataclass(frozen=True)
class Opened:
    """A model that is ready for work; `weights` only where a trainer's model was given."""

    engine: RolloutEngine
    scorer: Scorer
    weights: WeightSync | None = None
    backend: Backend | None = None  # None: transformers in this process


@contextlib.contextmanager
def open_hf(model: PreTrainedModel, vocab_size: int, rows: int, end_ids: tuple[int, ...] = ()) -> Iterator[Opened]:
    """Transformers in this process, on the model's live weights, `rows` completions side by side; the scorer takes
    `end_ids` as one token (logprobs.Head).
    """
    engine = HFEngine(model, vocab_size, rows_per_batch=rows)
    yield Opened(engine, HFScorer(model, vocab_size, end_ids), LiveWeights(engine))


@contextlib.contextmanager
def open_engine(
    execution: Execution,
    source: Source,
    vocab_size: int,
    folder: Path,
    *,
    longest: int,
    role: str = "student",
    model: PreTrainedModel | None = None,
) -> Iterator[Opened]:
    """The engine of the configuration with the model of `source`, for as long as the context lasts.

    Args:
        vocab_size: of the softmax: the shared vocabulary.
        folder: for a server's log and for weights that go by way of the disk.
        longest: positions of a prompt and its completion, at most; it decides the size of caches.
        role: "student" or "teacher".
        model: the trainer's, whose weights the engine is to follow; with hf, it is used itself.
    """
    if execution.name == "hf":
        if model is None:
            model = load_model(source.name, source.revision, source.dtype, device_name(execution))
            use_precision(str(model.dtype).removeprefix("torch."))
        rows = rows_per_batch(execution, model, longest)
        with open_hf(model, vocab_size, rows) as opened:
            yield opened
        return
    from harness.rollout.vllm import VLLMEngine, narrow
    from harness.scoring.vllm import VLLMScorer

    options = vllm_options(execution)
    if adapter_in(source.name) is not None:
        raise UserError(
            f"{source.name!r} holds adapters only, which engine={execution.name} does not load; give engine=hf."
        )
    with contextlib.ExitStack() as stack:
        started = _engine_options(execution, source, longest, follows=model is not None)
        backend = stack.enter_context(_backend(execution, started, folder, role))
        narrow(backend, vocab_size)
        engine = VLLMEngine(backend)
        weights = None
        if model is not None:
            weights = _weights(execution, engine, model, folder, stack=stack)
        yield Opened(engine, VLLMScorer(backend, vocab_size, options.max_logprobs), weights, backend)


def _backend(
    execution: Execution, started: EngineOptions, folder: Path, role: str
) -> contextlib.AbstractContextManager[Any]:
    from harness.rollout.server import ServerBackend, ServerProcess
    from harness.rollout.vllm import InProcessBackend

    if execution.name == "vllm":
        return InProcessBackend(started, execution.threads)
    server = server_options(execution)
    url = server.teacher_url if role == "teacher" else server.url
    process = None
    if url is None:
        process = ServerProcess(started, execution.threads, folder / f"server-{role}.log")
    return ServerBackend(process, url, server.start_limit_s, server.time_limit_s)


def _engine_options(execution: Execution, source: Source, longest: int, follows: bool) -> EngineOptions:
    from harness.rollout.vllm import EngineOptions

    options = vllm_options(execution)
    on_cpu = device_name(execution) == "cpu"
    config = load_config(source.name, source.revision)
    length = min(longest, context_length_of(config))
    card = None if on_cpu else torch.cuda.mem_get_info()[1]
    dtype = source.dtype if source.dtype != "auto" else str(config.dtype or "float32").removeprefix("torch.")
    return EngineOptions(
        source=locate(source.name),
        revision=source.revision,
        dtype=dtype,
        kv_cache_bytes=vllm_cache_bytes(options, cached_numbers_of(config), dtype, length, card_bytes=card),
        max_sequences=options.max_sequences,
        max_logprobs=options.max_logprobs,
        eager=options.eager,
        on_cpu=on_cpu,
        max_length=length,
        transfer_backend=options.transfer_backend if follows and options.weight_sync == "transfer" else None,
        sleeps=options.sleep and not on_cpu and execution.name == "vllm",
    )


def _weights(
    execution: Execution, engine: Any, model: PreTrainedModel, folder: Path, stack: contextlib.ExitStack
) -> WeightSync:
    options = vllm_options(execution)
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
