"""Rollouts by vLLM, in this process or behind a server: the engine, and the backend that it shares with the teacher's
scorer.

A `Backend` takes token ids and gives token ids and log-probs (raw: temperature 1, not truncated, whatever the
sampling); nothing is tokenized or detokenized. vLLM itself is imported when the first engine is opened, not before.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from harness.errors import UserError
from harness.files import ROOT
from harness.models.private_names import ENGINE_CORE
from harness.rollout import Finished, Progress, RolloutRequest, Sampling
from harness.types import Rollout

NOT_PUSHED = -1  # the policy version of an engine that holds the weights of its source, not the trainer's
# Of the card, which vLLM wants to find free at its start. With a cache of a given size it decides nothing else; the
# default of 0.92 is never free beside a trainer.
STARTING_SHARE = 0.01
EXTENSION = "harness.rollout.worker.WorkerExtension"
# what torchrun and `accelerate launch` tell a rank: an engine that read it would look for the trainer's process group
GROUP_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE")
GROUP_PREFIXES = ("MASTER_", "TORCHELASTIC_", "ACCELERATE_", "FSDP_", "ROLE_")


class EngineFailure(RuntimeError):
    """The engine died, hung or answered nonsense: not the user's fault, and not the method's."""


@dataclass(frozen=True)
class Call:
    """One request. The names of `options` mean the same in vllm.SamplingParams and in the completions API."""

    prompt_ids: Sequence[int]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Logprobs:
    """Log-probs at n positions, and the k most probable tokens there, most probable first."""

    chosen: np.ndarray  # [n]
    topk_ids: np.ndarray  # [n, k]
    topk: np.ndarray  # [n, k]


@dataclass(frozen=True)
class Answer:
    """What came back for a Call."""

    token_ids: tuple[int, ...]
    stopped: bool  # by a stop token
    written: Logprobs | None  # of token_ids
    prompt: Logprobs | None  # of the prompt's tokens after the first


Done = Callable[[int, Answer], None]  # called with a call's index and its answer as soon as that is there
Take = Callable[[], tuple[int, Call] | None]  # the next call for who asks, with its index; None: none for now


class Backend(Protocol):
    """A running vLLM with one model."""

    @property
    def max_length(self) -> int:
        """Positions, prompt and completion together."""
        ...

    after_restart: list[Callable[[], None]]  # what a fresh engine must be told again, in this order

    def run(self, calls: Sequence[Call], done: Done) -> None:
        """Answers every call, in whatever order they finish."""
        ...

    def tell(self, method: str, **arguments: Any) -> Any:
        """Calls a method of the worker (harness.rollout.worker); the first worker's result."""
        ...

    def reset_prefix_cache(self) -> None:
        """Forgets cached keys and values: after a change of the weights they are another model's."""
        ...

    def recover(self, failure: EngineFailure) -> None:
        """Starts the engine anew if that may still be done; otherwise raises the failure."""
        ...


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is started, whether in process or as a server."""

    source: str  # folder or Hub id
    revision: str | None
    dtype: str
    kv_cache_bytes: int
    max_sequences: int  # decoded side by side
    max_logprobs: int
    eager: bool  # no torch.compile, no CUDA graphs
    on_cpu: bool
    max_length: int  # positions
    transfer_backend: str | None = None  # of vLLM's own weight transfer; None: not used
    sleeps: bool = False  # frees the GPU's memory between two uses

    def arguments(self) -> dict[str, Any]:
        """The arguments of vllm.LLM; `vllm serve` takes the same ones as flags."""
        arguments = {
            "dtype": self.dtype,
            "enforce_eager": self.eager,
            "kv_cache_memory_bytes": self.kv_cache_bytes,
            "max_num_seqs": self.max_sequences,
            "max_logprobs": self.max_logprobs,
            "max_model_len": self.max_length,
            "worker_extension_cls": EXTENSION,
        }
        if self.dtype != "float32":
            # the trainer's head sums in float32 too; a half one rounds every logit
            arguments["hf_overrides"] = {"head_dtype": "float32"}
        if self.revision:
            arguments |= {"revision": self.revision, "tokenizer_revision": self.revision}
        if self.on_cpu:
            # 0.32.0: a seed per request and chunked prefill together crash ("CPU Generator does not use offset")
            arguments |= {
                "enable_chunked_prefill": False,
                "max_num_batched_tokens": max(8192, self.max_length),
            }
        else:
            arguments["gpu_memory_utilization"] = STARTING_SHARE
        if self.transfer_backend:
            arguments["weight_transfer_config"] = {"backend": self.transfer_backend}
        return arguments


def environment(threads: int) -> dict[str, str]:
    """Variables that vLLM reads when it is imported."""
    return {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),  # otherwise vLLM chooses
    }


def child_environment(threads: int, device: int | None) -> dict[str, str]:
    """The environment of a vLLM in a process of its own: without the trainer's process group, which it is no part of.

    Args: device: the one GPU that it sees, counted among those that this process sees; None: it sees the same.
    """
    cleaned = {key: value for key, value in os.environ.items() if not key.startswith(GROUP_PREFIXES)}
    cleaned = {key: value for key, value in cleaned.items() if key not in GROUP_VARIABLES}
    if device is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        cleaned["CUDA_VISIBLE_DEVICES"] = visible.split(",")[device].strip() if visible else str(device)
    found_from = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**cleaned, **environment(threads), "PYTHONPATH": found_from}


class InProcessBackend:
    """vLLM in this process: no other process, no socket. A context manager; closed, it gives its memory back."""

    def __init__(self, options: EngineOptions, threads: int) -> None:
        os.environ.update(environment(threads))
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        precision = torch.get_float32_matmul_precision()
        with _held_stderr():
            from vllm import LLM

            from harness.rollout.prompt_arrays import keep_prompt_arrays

            keep_prompt_arrays()
            self._llm: Any = LLM(
                options.source,
                disable_log_stats=True,
                seed=0,  # it seeds the process's generators, which nothing here draws from
                enable_sleep_mode=options.sleeps,
                **options.arguments(),
            )
        torch.set_float32_matmul_precision(precision)  # the trainer's; vLLM's worker sets its own for the process
        self.max_length = int(self._llm.llm_engine.model_config.max_model_len)
        self.after_restart: list[Callable[[], None]] = []
        self._sleeps = options.sleeps
        self._numbers = itertools.count()

    def __enter__(self) -> InProcessBackend:
        return self

    def __exit__(self, *_: object) -> None:
        ENGINE_CORE.of(self._llm.llm_engine).shutdown()
        del self._llm

    @property
    def llm(self) -> Any:
        """The vllm.LLM."""
        return self._llm

    def run(self, calls: Sequence[Call], done: Done, more: Callable[[], Sequence[Call]] = tuple) -> None:
        """See Backend. `more` is asked after every step for calls to take in; their indices go on from the last."""
        engine = self._llm.llm_engine
        waiting: dict[str, tuple[int, Call]] = {}
        indices = itertools.count()

        def add(call: Call) -> None:
            name = str(next(self._numbers))
            waiting[name] = next(indices), call
            engine.add_request(name, {"prompt_token_ids": list(call.prompt_ids)}, sampling_params(call))

        with self._awake():
            try:
                for call in calls:
                    add(call)
                while engine.has_unfinished_requests():
                    for output in engine.step():
                        if output.finished:
                            index, call = waiting.pop(output.request_id)
                            done(index, read_output(output, call))
                    for call in more():
                        add(call)
            finally:
                if waiting:  # an error in `done`: the engine stays usable
                    engine.abort_request(list(waiting))

    def tell(self, method: str, **arguments: Any) -> Any:
        """See Backend."""
        with self._awake():
            return self._llm.collective_rpc(method, kwargs=arguments)[0]

    def reset_prefix_cache(self) -> None:
        """See Backend."""
        if not self._llm.reset_prefix_cache():
            raise EngineFailure("vLLM did not reset its prefix cache")

    def recover(self, failure: EngineFailure) -> None:
        """There is no engine to start anew in a process: the run fails, and resumes."""
        raise failure

    @contextlib.contextmanager
    def _awake(self) -> Iterator[None]:
        """With sleep mode the weights are on the GPU only while they are used."""
        if self._sleeps:
            self._llm.wake_up()
        try:
            yield
        finally:
            if self._sleeps:
                self._llm.sleep(level=1)


def sampling_params(call: Call) -> Any:
    """A Call's vllm.SamplingParams: ids only, and its log-probs in a form that `read_output` reads."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        **call.options, detokenize=False, flat_logprobs=True, output_kind=RequestOutputKind.FINAL_ONLY
    )


def read_output(output: Any, call: Call) -> Answer:
    """A vLLM RequestOutput as an Answer, in a process of `keep_prompt_arrays`; EngineFailure where log-probs are
    missing.
    """
    (written,) = output.outputs
    prompt = own = None
    if (top_k := call.options.get("prompt_logprobs")) is not None:
        found = output.prompt_logprobs
        prompt = _logprobs(found.values, found.ids, len(call.prompt_ids) - 1, top_k)
    if (top_k := call.options.get("logprobs")) is not None:
        found = written.logprobs  # flat: no array, but the few of a completion's tokens, which Python made one by one
        values, ids = np.asarray(found.logprobs), np.asarray(found.token_ids)
        own = _logprobs(values, ids, len(written.token_ids), top_k)
    return Answer(tuple(written.token_ids), written.finish_reason == "stop", own, prompt)


def _logprobs(values: np.ndarray, ids: np.ndarray, positions: int, top_k: int) -> Logprobs:
    """Of every position the chosen token's entry, then the k most probable ones."""
    if values.size != positions * (1 + top_k):
        raise EngineFailure(f"vLLM answered with {values.size} log-probs for {positions} tokens at {1 + top_k} each")
    values = values.astype(np.float32).reshape(positions, 1 + top_k)
    ids = ids.astype(np.int64).reshape(positions, 1 + top_k)
    return Logprobs(values[:, 0], ids[:, 1:], values[:, 1:])


@contextlib.contextmanager
def _held_stderr() -> Iterator[None]:
    """What is written to stderr meanwhile, by native code too, is shown only if an error ends it: vLLM warns and draws
    bars as it starts.
    """
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(shown, held.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


class VLLMEngine:
    """A RolloutEngine over a Backend. Its policy version is that of the last push (harness.rollout.weights)."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.policy_version = NOT_PUSHED

    def generate(
        self,
        requests: Sequence[RolloutRequest],
        sampling: Sampling,
        progress: Progress | None = None,
        finished: Finished | None = None,
    ) -> list[Rollout]:
        """See RolloutEngine. A sample depends on its own seed; `progress` is told of a completion's tokens when it is
        done.

        A prefix is spliced in as token ids; its log-probs are given as 0, since only the trainer's own are used.
        """
        rollouts: dict[int, Rollout] = {}

        def done(index: int, answer: Answer) -> None:
            rollouts[index] = self._rollout(requests[index], answer)
            if progress is not None:
                progress(len(answer.token_ids))
            if finished is not None:
                finished(index, rollouts[index])

        self.backend.run([self._call(request, sampling) for request in requests], done)
        return [rollouts[index] for index in range(len(requests))]

    def _call(self, request: RolloutRequest, sampling: Sampling) -> Call:
        ids = (*request.prompt_ids, *request.prefix_ids)
        room = self.backend.max_length - len(ids)
        if room < 1:
            raise UserError(
                f"prompt {request.prompt_id!r} has no room for a completion in the engine's context of "
                f"{self.backend.max_length} tokens."
            )
        return Call(
            ids,
            {
                "max_tokens": min(sampling.max_new_tokens, room),
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "seed": request.seed,
                "stop_token_ids": list(sampling.stop_ids),
                "ignore_eos": True,  # the stop ids are all that stop
                "logprobs": 0,  # the sampled token's only
            },
        )

    def _rollout(self, request: RolloutRequest, answer: Answer) -> Rollout:
        assert answer.written is not None  # asked for
        return Rollout(
            prompt_ids=request.prompt_ids,
            completion_ids=(*request.prefix_ids, *answer.token_ids),
            prefix_len=len(request.prefix_ids),
            logprobs=(*[0.0] * len(request.prefix_ids), *answer.written.chosen.tolist()),
            policy_version=self.policy_version,
            stop_reason="stop" if answer.stopped else "length",
            prompt_id=request.prompt_id,
            sample_index=request.sample_index,
        )


def narrow(backend: Backend, vocab_size: int) -> None:
    """Makes the backend's softmax that of the shared vocabulary, now and after a restart."""

    def tell() -> None:
        backend.tell("harness_narrow", vocab_size=vocab_size)

    tell()
    backend.after_restart.append(tell)
