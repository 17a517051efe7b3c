"""The program of an engine in a process of its own that is transformers inside, in place of vLLM: it takes the calls
and the commands that vLLM takes, and computes in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.models.loading import load_model, load_tokenizer, stop_ids_of
from harness.rollout import RolloutRequest, Sampling
from harness.rollout.engine_program import main
from harness.rollout.hf import HFEngine
from harness.rollout.vllm import Answer, Call, Done, EngineOptions, Logprobs
from harness.rollout.worker import vocabulary_digest


class TransformersEngine:
    """In place of an InProcessBackend."""

    def __init__(self, options: EngineOptions, threads: int) -> None:
        torch.set_num_threads(threads)
        self.options, self.max_length = options, options.max_length
        self.model = load_model(options.source, dtype=options.dtype)
        self.vocab_size = 0

    def __enter__(self) -> TransformersEngine:
        return self

    def __exit__(self, *_: object) -> None: ...

    def run(self, calls: Sequence[Call], done: Done, more: Callable[[], Sequence[Call]] = tuple) -> None:
        """Answers calls one at a time, whoever is beside them."""
        at_work = list(calls)
        for index, call in enumerate(at_work):  # grows
            done(index, self._answer(call))
            at_work += more()

    def _answer(self, call: Call) -> Answer:
        options = call.options
        sampling = Sampling(
            options["max_tokens"], options["temperature"], stop_ids=tuple(options.get("stop_token_ids", ()))
        )
        request = RolloutRequest("", tuple(call.prompt_ids), options["seed"])
        (rollout,) = HFEngine(self.model, self.vocab_size).generate([request], sampling)
        nothing = np.zeros((len(rollout.logprobs), 0))
        written = Logprobs(np.asarray(rollout.logprobs), nothing, nothing)
        return Answer(rollout.completion_ids, rollout.stop_reason == "stop", written, None)

    def tell(self, method: str, **arguments: Any) -> Any:
        """The commands of harness.rollout.worker."""
        return getattr(self, method)(**arguments)

    def reset_prefix_cache(self) -> None:
        """It has none."""

    def harness_narrow(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def harness_load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """All weights, by their names in a checkpoint."""
        own, given = dict(self.model.named_parameters()), set()
        with torch.no_grad():
            for name, weight in weights:
                own[name].copy_(weight)
                given.add(name)
        assert given == own.keys()

    def harness_describe(self) -> dict[str, Any]:
        tokenizer = load_tokenizer(self.options.source)
        return {
            "tokenizer": vocabulary_digest(tokenizer),
            "vocab_size": self.model.config.vocab_size,
            "dtype": self.options.dtype,
            "stop_ids": list(stop_ids_of(self.model, tokenizer)),
        }


if __name__ == "__main__":
    main(TransformersEngine)  # type: ignore[arg-type]
