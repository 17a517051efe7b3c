"""What a step is before it is scored, padded, and what stands in for the scores that nobody reads.

Shape legend: B sequences of the step, T completion positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from harness.seeds import as_float32
from harness.types import Rollout, TokenBatch, TokenSignal


def token_batch(
    rollouts: Sequence[Rollout], uniforms: Sequence[np.random.Generator], dtype: torch.dtype = torch.float32
) -> TokenBatch:
    """Pads the completions to one [B, T] step."""
    width = max(len(r.completion_ids) for r in rollouts)

    def padded(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> Tensor:
        return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=dtype)

    position = torch.arange(width)
    lengths = torch.tensor([len(r.completion_ids) for r in rollouts])[:, None]
    prefixes = torch.tensor([r.prefix_len for r in rollouts])[:, None]
    valid = position < lengths
    return TokenBatch(
        labels=padded([r.completion_ids for r in rollouts], torch.long),
        on_policy_mask=valid & (position >= prefixes),
        prefix_mask=valid & (position < prefixes),
        rollout_logprobs=padded([r.logprobs for r in rollouts], dtype),
        uniforms=padded(
            [as_float32(g.random(len(r.completion_ids))).tolist() for g, r in zip(uniforms, rollouts, strict=True)],
            torch.float32,
        ),
    )


def unread(batch: TokenBatch) -> TokenSignal:
    """Log-probs of a model that did not score the step: NaN, so that a method which reads them after all fails."""
    return TokenSignal(torch.full_like(batch.rollout_logprobs, math.nan))
