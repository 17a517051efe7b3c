"""What a step is before it is scored, padded, and what stands in for the scores that nobody reads.

Shape legend: B sequences of the step, T completion positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.numerics.padding import padded
from harness.seeds import as_float32
from harness.types import Rollout, TokenBatch, TokenSignal


def token_batch(
    rollouts: Sequence[Rollout], uniforms: Sequence[np.random.Generator], dtype: torch.dtype = torch.float32
) -> TokenBatch:
    """Pads the completions to one [B, T] step, or a rank's part of it."""
    labels = padded([r.completion_ids for r in rollouts])
    position = torch.arange(labels.shape[1])
    lengths = torch.tensor([len(r.completion_ids) for r in rollouts])[:, None]
    prefixes = torch.tensor([r.prefix_len for r in rollouts])[:, None]
    valid = position < lengths
    return TokenBatch(
        labels=labels,
        on_policy_mask=valid & (position >= prefixes),
        prefix_mask=valid & (position < prefixes),
        rollout_logprobs=padded([r.logprobs for r in rollouts], dtype),
        uniforms=padded(
            [as_float32(g.random(len(r.completion_ids))) for g, r in zip(uniforms, rollouts, strict=True)],
            torch.float32,
        ),
    )


@dataclass(frozen=True)
class Endings:
    """Of the completions of a step, what no method reads and the metrics tell: where they ended, and might have."""

    stopped: Tensor  # [B, T] bool, the last token of a completion that ended by itself
    # [B, T] float, the student's log-prob of any end token at all, when it sampled; NaN where it was not recorded
    stop_logprobs: Tensor


def endings_of(rollouts: Sequence[Rollout], dtype: torch.dtype = torch.float32) -> Endings:
    """What the engine told of the ends, padded as token_batch does."""
    lengths = [len(r.completion_ids) for r in rollouts]
    stopped = torch.zeros(len(rollouts), max(lengths), dtype=torch.bool)
    for row, (rollout, length) in enumerate(zip(rollouts, lengths, strict=True)):
        stopped[row, length - 1] = rollout.stop_reason == "stop"
    told = [r.stop_logprobs for r in rollouts]
    unknown = [[math.nan] * (length - len(own)) for own, length in zip(told, lengths, strict=True)]
    return Endings(stopped, padded([[*u, *own] for u, own in zip(unknown, told, strict=True)], dtype))


def unread(batch: TokenBatch) -> TokenSignal:
    """Log-probs of a model that did not score the step: NaN, so that a method which reads them after all fails."""
    return TokenSignal(torch.full_like(batch.rollout_logprobs, math.nan))
