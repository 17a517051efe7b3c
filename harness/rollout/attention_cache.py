"""The sampler's state of a batch whose model keeps keys and values of attention and nothing else.

Two things make a step cheap where weights and vocabularies are real. The cache has room for tokens to come, so that a
step writes into it instead of copying it. And query heads that share a key head are read as several queries of that
head: transformers repeats the keys for each of them as soon as rows of different lengths need a mask, which at 7 heads
a key costs more than the rest of the attention.

Shape legend: B rows in the batch, L cached positions, H hidden width, D width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from harness.models.backbone import backbone_of, cache_name, hidden_states
from harness.models.contexts import context_length
from harness.models.private_names import ATTENTION

GROWTH = 64  # positions that a cache grows by
FOLDED_FROM = 512  # width of all query heads together, below which a model in float32 is narrow
FOLDED = "harness_folded"  # the name of `folded_attention` in transformers' registry


class GrowingLayer(DynamicLayer):
    """Keys and values [B, heads, L, D] at the beginning of buffers that are longer."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._hold(keys, values)

    def _hold(self, keys: Tensor, values: Tensor) -> None:
        length = keys.shape[2]
        self._buffers = [x.new_empty(*x.shape[:2], length + GROWTH, x.shape[3]) for x in (keys, values)]
        for buffer, found in zip(self._buffers, (keys, values), strict=True):
            buffer[:, :, :length] = found
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends; returns all keys and values."""
        assert self.keys is not None and self.values is not None
        begin = self.keys.shape[2]
        end = begin + key_states.shape[2]
        if end > self._buffers[0].shape[2]:
            self._hold(self.keys, self.values)
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, begin:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps some rows only."""
        assert self.keys is not None and self.values is not None
        self._hold(self.keys[indices], self.values[indices])


def merge_caches(caches: Sequence[DynamicCache], width: int, rows: Tensor) -> DynamicCache:
    """One cache of `width` positions, left-padded with zeros, whose row i is row rows[i] of the concatenation."""
    merged = DynamicCache()
    for layer in range(len(caches[0].layers)):
        joined = []
        for name in ("keys", "values"):
            parts = [getattr(cache.layers[layer], name) for cache in caches]
            parts = [torch.nn.functional.pad(part, (0, 0, width - part.shape[2], 0)) for part in parts]
            joined.append(torch.cat(parts)[rows])
        merged.layers.append(GrowingLayer(*joined))
    return merged


def folded_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of one new token a row, the query heads of a key head side by side; else transformers' own.

    Narrow float32 models stay as they are: the copy is small, and the published figures of the tiny models were made so
    to the last bit.

    Args: query [B, query heads, 1, D]; key, value [B, key heads, L, D]; attention_mask [B, 1, 1, L] or None.
    Returns: [B, 1, query heads, D]; None.
    """
    groups = getattr(module, "num_key_value_groups", 1)
    rows, heads, _, width = query.shape
    worth_it = groups > 1 and (query.dtype.itemsize == 2 or heads * width >= FOLDED_FROM)
    one_mask = attention_mask is None or attention_mask.shape[1] == 1
    if query.shape[2] != 1 or not worth_it or not one_mask or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    attended = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(rows, heads // groups, groups, width),
        key,
        value,
        attn_mask=attention_mask,
        scale=kwargs.get("scaling"),
    )
    return attended.reshape(rows, 1, heads, value.shape[-1]), None


AttentionInterface.register(FOLDED, folded_attention)
AttentionMaskInterface.register(FOLDED, sdpa_mask)


@contextmanager
def folding(model: PreTrainedModel) -> Iterator[None]:
    """With `folded_attention` for as long as the context lasts, where the model has transformers' `sdpa`."""
    config = model.config.get_text_config()
    before = ATTENTION.of(config)
    if before == "sdpa":
        ATTENTION.put(config, FOLDED)
    try:
        yield
    finally:
        ATTENTION.put(config, before)


@dataclass
class AttentionState:
    """Caches of keys and values, left-padded to one length."""

    model: PreTrainedModel
    cache: DynamicCache
    attention: Tensor  # [B, L] long, 0 at left padding
    positions: Tensor  # [B], of the next token
    can_select = True

    def select(self, rows: Tensor) -> None:
        """Keeps some rows only."""
        self.cache.batch_select_indices(rows)
        self.attention, self.positions = self.attention[rows], self.positions[rows]

    def step(self, drawn: Tensor) -> Tensor:
        """Appends a token [B] to every row; returns its state [B, H]."""
        self.attention = torch.cat([self.attention, self.attention.new_ones(len(drawn), 1)], dim=1)
        with folding(self.model):
            output = hidden_states(
                self.model,
                drawn[:, None],
                attention_mask=self.attention,
                position_ids=self.positions[:, None],
                use_cache=True,
                **{cache_name(backbone_of(self.model)): self.cache},
            )
        room = context_length(self.model)
        self.positions = (self.positions + 1).clamp_max(room - 1)  # finished rows may run over
        return output.last_hidden_state[:, 0]
