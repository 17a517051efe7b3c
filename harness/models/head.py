"""Reading log-probs out of a model without its logits ever existing as a whole.

Shape legend: B sequences, L tokens of a padded sequence, N token positions, R of them with a divergence weight, H hidden width, V
vocabulary."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    PreTrainedModel,
)

from harness.errors import UserError
from harness.numerics.logprobs import Projection, project
from harness.numerics.loss import Targets, head_loss

HEAD_CHECK_TOLERANCE = (
    1e-3  # nats; float32 rounding of a correct head is far below, any transformation of the logits far above
)


@dataclass(frozen=True)
class Head:
    """A model's output projection, sliced to the shared vocabulary."""

    weight: Tensor  # [V, H]
    bias: Tensor | None  # [V]


def head_of(model: PreTrainedModel, vocab_size: int) -> Head:
    """The first `vocab_size` rows of the output projection."""
    projection = model.get_output_embeddings()
    bias = getattr(projection, "bias", None)
    return Head(projection.weight[:vocab_size], None if bias is None else bias[:vocab_size])


def hidden_states(model: PreTrainedModel, input_ids: Tensor, **kwargs: Any) -> Any:
    """The backbone's output (`last_hidden_state` [B, L, H]); right padding needs no mask, since attention is causal."""
    return model.base_model(input_ids=input_ids, **kwargs)


def bind_token_forward(model: PreTrainedModel, vocab_size: int) -> None:
    """Makes `model(...)` return the loss of a micro-batch instead of logits, on this instance only.

    The head is thus read inside the (possibly FSDP- or DDP-wrapped) forward, while class and parameter names stay
    the model's own.
    """

    def token_forward(self: PreTrainedModel, input_ids: Tensor, rows: Tensor, **targets: Any) -> tuple[Tensor, Tensor]:
        """The loss with gradient, and its three terms without.

        Args: input_ids [B, L], right-padded; rows [N], flat indices into [B·L] of the positions that predict the tokens of `targets`, the
            fields of loss.Targets.
        Returns: scalar; [3], see loss.head_loss.
        """
        hidden = hidden_states(self, input_ids, use_cache=False).last_hidden_state.flatten(0, 1)[rows]
        projection = self.get_output_embeddings()
        bias = getattr(projection, "bias", None)
        return head_loss(hidden, projection.weight, bias, vocab_size, targets=Targets(**targets))

    model.forward = types.MethodType(token_forward, model)


@torch.no_grad()
def _check_head(model: PreTrainedModel, name: str) -> None:
    """Refuses models whose logits are not a plain linear map of the last hidden state (soft caps, scales): log-probs would be silently wrong."""
    if model.base_model is model or model.get_output_embeddings() is None:
        raise UserError(
            f"{name!r} is not a causal LM with a backbone and a linear head; this model class is not supported."
        )
    ids = torch.arange(4).remainder(model.config.get_text_config().vocab_size)[None].to(model.device)
    expected = model(input_ids=ids).logits[0].float().log_softmax(-1)
    hidden = hidden_states(model, ids, use_cache=False).last_hidden_state[0]
    head = head_of(model, expected.shape[-1])
    every_id = torch.arange(expected.shape[-1], device=model.device).expand(len(hidden), -1)
    found: Projection = project(hidden, head.weight, every_id, head_bias=head.bias)
    tolerance = 0.5 if model.dtype == torch.bfloat16 else HEAD_CHECK_TOLERANCE
    if not (found.logprobs - expected).abs().max() <= tolerance:
        raise UserError(
            f"{name!r} transforms its logits after the head (a soft cap or a scale); this model class is not supported."
        )
