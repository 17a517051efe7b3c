"""Prompt log-probs of vLLM as arrays.

They come from the engine core as tensors, and vLLM's frontend makes Python lists of them, also with `flat_logprobs`: of
65 log-probs, ids and ranks a token where the 64 most probable are asked for. Here they stay arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from harness.models.private_names import LOGPROBS_PROCESSOR, UPDATE_PROMPT_LOGPROBS


class PromptArrays(NamedTuple):
    """Of n scored positions: the given token's entry, then the k most probable ones, most probable first."""

    ids: np.ndarray  # [n, 1 + k]
    values: np.ndarray  # [n, 1 + k]


def keep_prompt_arrays() -> None:
    """From now on, for every engine whose frontend is in this process: a request with `flat_logprobs` gets PromptArrays
    as its `prompt_logprobs`, every other one what vLLM makes.
    """
    from vllm.logprobs import FlatLogprobs

    processor, vllms_own = LOGPROBS_PROCESSOR.get(), UPDATE_PROMPT_LOGPROBS.get()
    if vllms_own.__module__ == __name__:
        return

    def update(self: Any, tensors: Any) -> None:
        before = self.prompt_logprobs
        if not isinstance(before, FlatLogprobs | PromptArrays):
            vllms_own(self, tensors)
            return
        found = PromptArrays(*(tensor.cpu().numpy() for tensor in tensors[:2]))
        if isinstance(before, PromptArrays):  # a prompt that was computed in parts
            found = PromptArrays(*(np.concatenate(parts) for parts in zip(before, found, strict=True)))
        self.prompt_logprobs = found

    UPDATE_PROMPT_LOGPROBS.put(processor, update)
