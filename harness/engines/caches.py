"""How much is decoded side by side: the sizes of key-value caches, from the longest sequence and the memory at hand."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from harness.config.execution import Execution, VLLMOptions
from harness.errors import UserError
from harness.models.sizes import BYTES, decoded_row_bytes, size_of

GIB = 2**30
ROWS = 512  # decoded side by side by transformers, at most: beyond it a GPU gains nothing
# Of what is left beside the models and AdamW; the rest is for the prefill's copy of the cache and for fragments.
ROWS_SHARE = 0.7
OPTIMISER_BYTES = 16  # of a trained weight, at most: its master, two moments, its gradient
VLLM_SHARE = 0.25  # of a card, for the cache of one engine: the teacher may have another, and the trainer works beside
VLLM_ALONE_SHARE = 0.85  # of what is free on its card, for an engine alone; the rest: activations, graphs, fragments
VLLM_CPU_BYTES = GIB // 4  # of the cache of an engine on a CPU
VLLM_BLOCK = 128  # positions, at most, that vLLM gives a cache at a time (16 on a GPU)


def rows_that_fit(row_bytes: int, free_bytes: int) -> int:
    """How many rows of this size are decoded side by side in so much memory: from 1 to ROWS."""
    return max(1, min(ROWS, int(ROWS_SHARE * free_bytes) // max(1, row_bytes)))


def rows_per_batch(execution: Execution, model: PreTrainedModel, longest: int, later_bytes: int = 0) -> int:
    """engine.rows_per_batch; where it is null, ROWS, or as many rows of `longest` positions as the model's GPU holds.

    Args: longest: positions of a prompt and its completion, at most; later_bytes: what is yet to come beside the cache.
    """
    if execution.rows_per_batch is not None:
        return execution.rows_per_batch
    if model.device.type != "cuda":
        return ROWS
    size = size_of(model.config, model.num_parameters())
    dtype = str(model.dtype).removeprefix("torch.")
    free = torch.cuda.mem_get_info(model.device)[0]
    return rows_that_fit(decoded_row_bytes(size, min(longest, size.context), dtype), free - later_bytes)


def room_beside(card_bytes: int | None) -> int:
    """Bytes that the cache of an engine may take beside a trainer and other engines; `card_bytes` None: on a CPU."""
    return VLLM_CPU_BYTES if card_bytes is None else int(VLLM_SHARE * card_bytes)


def room_alone(free_bytes: int, weights_bytes: int, engines: int = 1) -> int:
    """Bytes that the cache of an engine may take on a card that it shares with no more than its like."""
    return int(VLLM_ALONE_SHARE * free_bytes) // engines - weights_bytes


def sequence_bytes(cached_numbers: int, dtype: str, longest: int) -> int:
    """What one sequence of `longest` positions takes of a cache of vLLM."""
    blocks = -(-longest // VLLM_BLOCK) + 1  # one more, which vLLM keeps for itself
    return BYTES.get(dtype, 4) * cached_numbers * VLLM_BLOCK * blocks


def vllm_cache_bytes(options: VLLMOptions, cached_numbers: int, dtype: str, longest: int, room: int) -> int:
    """The cache of one engine of vLLM; UserError where what is asked for does not hold one sequence.

    engine.vllm.kv_cache_gib or, where it is null, enough for max_sequences of `longest` positions, within the `room`
    (bytes: room_beside, room_alone), and never less than one.

    Args: cached_numbers: of the model, per token.
    """
    one = sequence_bytes(cached_numbers, dtype, longest)
    if options.kv_cache_gib is not None:
        if options.kv_cache_gib * GIB < one:
            raise UserError(
                f"engine.vllm.kv_cache_gib={options.kv_cache_gib:g} does not hold one sequence of {longest} tokens, "
                f"which takes {one / GIB:.2f}; give as much, or null."
            )
        return int(options.kv_cache_gib * GIB)
    return max(one, min(one * options.max_sequences, room))
