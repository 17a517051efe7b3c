"""Reading log-probs out of a model without its logits ever existing as a whole.

Shape legend: B sequences, L tokens of a padded sequence, N token positions, R of them with a divergence weight, H
hidden width, V vocabulary."""

from __future__ import annotations

import types
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from harness.models.backbone import hidden_states
from harness.models.transform import transform_of
from harness.numerics.logprobs import Head
from harness.numerics.loss import Targets, head_loss


def head_of(model: PreTrainedModel, vocab_size: int, end_ids: tuple[int, ...] = ()) -> Head:
    """The first `vocab_size` rows of the output projection, and what is done to the logits; `end_ids`: see Head."""
    projection = model.get_output_embeddings()
    bias = getattr(projection, "bias", None)
    bias = None if bias is None else bias[:vocab_size]
    return Head(projection.weight[:vocab_size], bias, transform_of(model), end_ids)


def bind_token_forward(model: PreTrainedModel, vocab_size: int, end_ids: tuple[int, ...] = ()) -> None:
    """Makes `model(...)` return the loss of a micro-batch instead of logits, on this instance only.

    The head is thus read inside the (possibly FSDP- or DDP-wrapped) forward, while class and parameter names stay
    the model's own.
    """
    transform = transform_of(model)  # looked for in the model's own forward

    def token_forward(self: PreTrainedModel, input_ids: Tensor, rows: Tensor, **targets: Any) -> tuple[Tensor, Tensor]:
        """The loss with gradient, and its three terms without.

        Args: input_ids [B, L], right-padded; rows [N], flat indices into [B·L] of the positions that predict the tokens
            of `targets`, the
            fields of loss.Targets.
        Returns: scalar; [3], see loss.head_loss.
        """
        hidden = hidden_states(self, input_ids, use_cache=False).last_hidden_state.flatten(0, 1)[rows]
        projection = self.get_output_embeddings()
        head = Head(projection.weight, getattr(projection, "bias", None), transform, end_ids)
        return head_loss(hidden, head, vocab_size, Targets(**targets))

    model.forward = types.MethodType(token_forward, model)
