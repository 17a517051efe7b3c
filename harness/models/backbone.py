"""The part of a causal LM below its head, and what is asked of it: that it is one, and that a token knows only those
before it.

Shape legend: B sequences, L tokens, H hidden width.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from harness.errors import UserError
from harness.models.contexts import context_length_of

PROBE_TOKENS = 12  # of the text that a model is tried on at its start
LONGER_TOKENS = 64  # likewise, where what sets in later counts: a window, attention to the best few tokens alone
NOT_CAUSAL = 0.25  # relative; what rounding in half types cannot do to a state, and what seeing the future does


def backbone_of(model: PreTrainedModel) -> PreTrainedModel:
    """What makes the last hidden state; the model itself if it has no such part."""
    if model.base_model is not model:
        return model.base_model  # type: ignore[return-value]
    inner = getattr(model, "model", None)  # where the class names another prefix than it has (Llama 4's text model)
    return inner if isinstance(inner, PreTrainedModel) else model


def hidden_states(model: PreTrainedModel, input_ids: Tensor, **kwargs: Any) -> Any:
    """The backbone's output (`last_hidden_state` [B, L, H]); right padding needs no mask, since attention is causal."""
    return backbone_of(model)(input_ids=input_ids, **kwargs)


def cache_name(model: nn.Module) -> str:
    """Under which it takes and returns its keys and values: `cache` where transformers has renamed it (5.24 has, and
    drops the old name in 5.40).
    """
    return _cache_name(type(model).forward)


@functools.cache
def _cache_name(forward: Callable[..., Any]) -> str:
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """In eval mode for as long as the context lasts."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def probe_ids(model: PreTrainedModel, count: int = PROBE_TOKENS) -> Tensor:
    """[1, count]: a text to try the model on."""
    return torch.arange(count, device=model.device).remainder(model.config.get_text_config().vocab_size)[None]


def rounding(dtype: torch.dtype) -> float:
    """What two correct computations may differ by, relative to their largest number.

    8 units of half types; 1,024 of float32, which sums in another order; and no less for float64, since many classes
    compute some of their layers in float32 whatever their weights.
    """
    return 8 * torch.finfo(dtype).eps if dtype.itemsize == 2 else 1024 * torch.finfo(torch.float32).eps


def near(found: Tensor, expected: Tensor, relative: float) -> bool:
    """Row by row, relative to the row's largest number."""
    size = expected.abs().amax(-1, keepdim=True)
    return bool(((found - expected).abs() <= relative * size + 1e-12).all())


def check_decoder(config: Any, name: str) -> None:
    """UserError for a model that is no causal LM by its configuration alone, before its weights are read.

    transformers would load some of them all the same: the decoder of an encoder-decoder without its encoder, and BERT
    and its kin, which see what follows a token.
    """
    kind = type(config)
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING:
        found = "transformers has no causal LM of its kind"
    elif getattr(config, "is_encoder_decoder", False):
        found = "it is an encoder-decoder"
    elif kind in MODEL_FOR_MASKED_LM_MAPPING and getattr(config, "is_decoder", None) is False:
        found = "it is an encoder (is_decoder is false)"
    else:
        return
    raise UserError(f"{name!r} ({config.model_type}) is no decoder: {found}; give a causal language model.")


@torch.no_grad()
def check_causal(model: PreTrainedModel, name: str) -> None:
    """Refuses a model whose states change with what follows them: its log-probs would be of no distribution to sample
    from.
    """
    count = min(LONGER_TOKENS, context_length_of(model.config))
    ids = probe_ids(model, count)
    whole, half = (hidden_states(model, ids[:, :n], use_cache=False).last_hidden_state[0] for n in (count, count // 2))
    apart = (whole[: count // 2] - half).float().norm() / half.float().norm()
    if not apart <= (NOT_CAUSAL if model.dtype.itemsize == 2 else 1e-3):
        raise UserError(
            f"{name!r} ({type(model).__name__}) is not causal: what follows a token changes its state; give a decoder."
        )
