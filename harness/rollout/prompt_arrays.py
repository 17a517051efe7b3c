"""Prompt log-probs of vLLM as arrays.

They come from the engine core as tensors (`LogprobsTensors`), and vLLM's frontend makes Python lists of them, also with
`flat_logprobs`: of 65 log-probs, ids and ranks a token where the 64 most probable are asked for. Here they stay arrays.

Imported only where vLLM is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from vllm.logprobs import FlatLogprobs
from vllm.v1.engine import output_processor
from vllm.v1.engine.logprobs import LogprobsProcessor


class PromptArrays(NamedTuple):
    """Of n scored positions: the given token's entry, then the k most probable ones, most probable first."""

    ids: np.ndarray  # [n, 1 + k]
    values: np.ndarray  # [n, 1 + k]


class ArrayLogprobsProcessor(LogprobsProcessor):
    """vLLM's, but a request with `flat_logprobs` gets PromptArrays as its `prompt_logprobs`."""

    prompt_logprobs: Any

    def _update_prompt_logprobs(self, prompt_logprobs_tensors: Any) -> None:
        before = self.prompt_logprobs
        if not isinstance(before, FlatLogprobs | PromptArrays):
            super()._update_prompt_logprobs(prompt_logprobs_tensors)
            return
        found = PromptArrays(*(tensor.cpu().numpy() for tensor in prompt_logprobs_tensors[:2]))
        if isinstance(before, PromptArrays):  # a prompt that was computed in parts
            found = PromptArrays(*(np.concatenate(parts) for parts in zip(before, found, strict=True)))
        self.prompt_logprobs = found


def keep_prompt_arrays() -> None:
    """From now on, for every engine whose frontend is in this process."""
    output_processor.LogprobsProcessor = ArrayLogprobsProcessor
