"""Sampling from models that keep something else than keys and values of attention: their own cache, handed from call to
call.

Three ways, tried in this order: rows of all lengths side by side, left-padded, where the class masks padding out of its
state; rows of one length at a time; and for classes whose backbone returns no cache, the whole text again for every
token.

Shape legend: B rows in the batch, L tokens, H hidden width.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

from harness.models.backbone import backbone_of, hidden_states
from harness.models.contexts import context_length

# under which backbones take and return their cache; a new transformers answers to some of the older names too
CACHES = ("cache", "past_key_values", "cache_params", "state")


@dataclass(frozen=True)
class Way:
    """How a model's batches are decoded."""

    said: str | None  # of it at the start; None for the ordinary one
    own_cache: bool = True
    ragged: bool = True  # rows of different length share a batch


ATTENTION = Way(None, own_cache=False)
RAGGED = Way("sampled by its own cache")
EQUAL = Way("sampled by its own cache, prompts of one length at a time", ragged=False)
AGAIN = Way(
    "returns no cache to sample with, so that every token costs a forward pass over the whole text; engine=vllm may "
    "be faster",
    ragged=False,
)


# what transformers' `reorder_cache` picks the rows of
REORDERED = {"keys", "values", "indexer_keys", "conv_states", "recurrent_states"}


def _left_behind(cache: Cache, rows: int) -> bool:
    """Whether a layer holds tensors of so many rows that `reorder_cache` would leave as they are (DeepSeek-V4)."""
    for layer in cache.layers:
        for name, value in vars(layer).items():
            found = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
            if name not in REORDERED and any(isinstance(t, Tensor) and t.dim() and len(t) == rows for t in found):
                return True
    return False


class OwnState:
    """What the model knows of the rows so far. `hidden` [B, L, H] are the states of the prompts, left-padded."""

    def __init__(self, model: PreTrainedModel, sequences: Sequence[Sequence[int]], way: Way) -> None:
        self.model, self.keeps_cache, self.room = model, way is not AGAIN, context_length(model)
        width = max(map(len, sequences))
        padded = [[0] * (width - len(s)) + list(s) for s in sequences]
        self.ids = torch.tensor(padded, device=model.device)
        masks = [[0] * (width - len(s)) + [1] * len(s) for s in sequences]
        self.mask = torch.tensor(masks, device=model.device)
        self.ragged = min(map(len, sequences)) < width
        self.takes = inspect.signature(backbone_of(model).forward).parameters
        self.cache: dict[str, Any] = {}
        self.hidden = self._forward(self.ids)

    @property
    def can_select(self) -> bool:
        """Whether finished rows can leave: not where a class keeps more of each row than its cache reorders."""
        return all(isinstance(cache, Cache) and not _left_behind(cache, len(self.ids)) for cache in self.cache.values())

    @property
    def holds_states_alone(self) -> bool:
        """Whether the cache has no keys and values of attention: a state has taken in what a mask would say."""
        if "cache_params" in self.cache:
            return True
        cache = self.cache.get("cache")
        return isinstance(cache, Cache) and not any(isinstance(layer, CacheLayerMixin) for layer in cache.layers)

    def select(self, rows: Tensor) -> None:
        """Keeps some rows only."""
        self.ids, self.mask = self.ids[rows], self.mask[rows]
        for cache in self.cache.values():
            cache.reorder_cache(rows)

    def step(self, drawn: Tensor) -> Tensor:
        """Appends a token [B] to every row; returns its state [B, H]."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        self.ids = torch.cat([self.ids, drawn[:, None]], dim=1)
        return self._forward(drawn[:, None] if self.keeps_cache else self.ids)[:, -1]

    def _forward(self, ids: Tensor) -> Tensor:
        given: dict[str, Any] = {"use_cache": self.keeps_cache, **self.cache}
        if "position_ids" in self.takes:
            positions = (self.mask.cumsum(1) - 1).clamp(0, self.room - 1)  # finished rows may run over
            given["position_ids"] = positions[:, -ids.shape[1] :]
        if self.ragged and not self.holds_states_alone:
            given["attention_mask"] = self.mask
        output = hidden_states(
            self.model, ids, **{k: v for k, v in given.items() if k in self.takes or k == "use_cache"}
        )
        if self.keeps_cache:
            found: dict[str, Any] = {}
            for name in CACHES:
                cache = getattr(output, name, None)
                if cache is not None and all(cache is not other for other in found.values()):
                    found[name] = cache
            if not found:
                raise TypeError(f"{type(self.model).__name__} returns no cache")
            self.cache = found
        return output.last_hidden_state
