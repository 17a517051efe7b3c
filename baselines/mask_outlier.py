"""OPD without the tokens of very low reward: one of TrOPD's three ways to handle outliers."""

import math
from dataclasses import dataclass

import torch

from harness.types import Method, TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class MaskOutlier(Method):
    """Mask Outlier: OPD that drops every token whose reward is not above a threshold.

    Row "Mask Outlier" of Table 1 of TrOPD (arXiv 2606.01249).

        A_t = 1[r > τ]·r,   r = sg[log π_T(x_t) − log π_S(x_t)]

    Other code: as of baselines/tropd.py.

    Readings: where the paper is silent, τ is static, and the same as Clip Outlier's floor, so that the two differ in
    nothing else; the sum is divided by all student tokens.

    Deviations: none known.
    """

    threshold: float = math.log(0.25)  # τ, nats; not stated by the paper, REOPOLD's floor

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = r where r > τ."""
        reward = teacher.logprobs - student.logprobs
        zeros = torch.zeros_like(reward)
        keep = (reward > self.threshold) & batch.on_policy_mask
        masked = (batch.on_policy_mask & ~keep).sum() / batch.on_policy_mask.sum().clamp_min(1)
        return TokenCredit(
            advantages=torch.where(keep, reward, zeros),
            divergence_weights=zeros,
            imitation_weights=zeros,
            metrics={"masked_frac": masked.item()},
        )


METHOD = MaskOutlier
