"""Opens what `engine=` asks for, by role: a rollout engine, a scorer, and the way in which the trainer's weights get
into the engine.

vLLM is imported only if the configuration asks for it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.execution import Execution
from harness.engines import group
from harness.engines.backends import Source, open_backend
from harness.engines.caches import rows_per_batch
from harness.engines.checks import KEYS, device_name, urls_of, weight_sync_of
from harness.engines.shared import SharedWeights
from harness.errors import UserError
from harness.files import locate
from harness.models.adapters import adapter_in
from harness.models.loading import load_model
from harness.models.precision import use_precision
from harness.rollout import RolloutEngine
from harness.rollout.hf import HFEngine
from harness.rollout.vllm import EngineFailure, VLLMEngine, narrow
from harness.rollout.weights import DiskWeights, InProcessWeights, LiveWeights, TransferWeights, WeightSync
from harness.scoring import Scorer
from harness.scoring.hf import HFScorer
from harness.scoring.vllm import VLLMScorer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.rollout.vllm import Backend


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
    role: str,
    model: PreTrainedModel | None = None,
) -> Iterator[Opened]:
    """Who plays a role, with the model of `source`, for as long as the context lasts.

    Args:
        vocab_size: of the softmax: the shared vocabulary.
        folder: for logs and for weights that go by way of the disk.
        longest: positions of a prompt and its completion, at most; it decides the size of caches.
        role: "student", "teacher" or "evaluation" (engines.checks.KEYS); of several ranks rank 0 evaluates, and all
            of them open the other two.
        model: the trainer's, whose weights the engine is to follow; with hf, it is used itself.
    """
    name = execution.who(role)
    if name == "hf":
        if model is None:
            model = load_model(source.name, source.revision, source.dtype, device_name(execution))
            use_precision(str(model.dtype).removeprefix("torch."))
        rows = rows_per_batch(execution, model, longest)
        with open_hf(model, vocab_size, rows) as opened:
            yield opened
        return
    if adapter_in(source.name) is not None:
        raise UserError(
            f"{source.name!r} holds adapters only, which {KEYS[role]}={name} does not load; give {KEYS[role]}=hf."
        )
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(open_backend(execution, source, longest, folder, role=role))
        narrow(backend, vocab_size)
        engine = VLLMEngine(backend)
        weights = None
        if model is not None:
            weights = _weights(execution, engine, model, folder, stack=stack)
        if role == "evaluation" and name == "server" and urls_of(execution, role):
            _load_stored(backend, source, urls_of(execution, role))
        scorer = VLLMScorer(backend, vocab_size, execution.vllm.max_logprobs)
        yield Opened(engine, scorer, weights, backend)


def _load_stored(backend: Backend, source: Source, urls: list[str]) -> None:
    """Gives running servers, whatever weights they hold, those of the checkpoint that is to be evaluated."""
    path = locate(source.name)
    if not Path(path).is_dir():
        from huggingface_hub import snapshot_download

        path = snapshot_download(source.name, revision=source.revision)

    def tell() -> None:
        backend.tell("harness_load", path=path)
        backend.reset_prefix_cache()

    try:
        tell()
    except EngineFailure as failure:
        raise UserError(
            f"the server at {urls[0]} does not take the weights of {source.name!r} ({failure}): it must serve a model "
            "of the same sizes and see that folder; leave engine.server.urls out, or give engine.evaluation=hf."
        ) from failure
    backend.after_restart.append(tell)


def _weights(
    execution: Execution, engine: VLLMEngine, model: PreTrainedModel, folder: Path, stack: contextlib.ExitStack
) -> WeightSync:
    way = weight_sync_of(execution)
    together = execution.name == "server" and group.count() > 1
    if together and group.index() > 0:
        return SharedWeights(engine, None)
    if way == "in_process":
        return InProcessWeights(engine, model)
    weights: DiskWeights | TransferWeights
    if way == "disk":
        weights = DiskWeights(engine, model, folder / f"pushed{group.index() or ''}")  # a rank's own
        stack.callback(weights.clear)
    else:
        weights = TransferWeights(engine, model, engine.backend, _transfer_info(execution, engine.backend))
    return SharedWeights(engine, weights) if together else weights


def _transfer_info(execution: Execution, backend: Any) -> Callable[[], Any]:
    """How vLLM's transfer connects: the trainer is one end, every server's one worker another."""

    def init_info() -> Any:
        if execution.vllm.transfer_backend == "ipc":
            from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

            return IPCTrainerInitInfo(rank=0)
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        return NCCLTrainerInitInfo("127.0.0.1", port, 1 + getattr(backend, "receivers", 1), rank=0)

    return init_info
