"""A null for TrOPD: a gate of the same rate that looks at nothing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.tropd import TrOPD
from harness.types import TokenBatch


@dataclass(frozen=True)
class RandomGate(TrOPD):
    """Random gate: TrOPD with a gate of the same rate that is independent of the token.

    A row of ours, a null for TrOPD (arXiv 2606.01249).

        M ~ Bernoulli(P̄),   P̄ = mean of min(π_T(x)/π_S(x), 1) over the step's student tokens

    Everything else, guidance included, as in baselines/tropd.py. What TrOPD gains over this row is gained by where the
    gate closes, not by how often.
    """

    def draw_mask(self, reward: Tensor, batch: TokenBatch) -> Tensor:
        """M, one draw a token at the step's mean rate."""
        own = batch.on_policy_mask
        trust = torch.where(own, self.trust_probability(reward), torch.zeros_like(reward))
        return (batch.uniforms < trust.sum() / own.sum().clamp_min(1)) & own


METHOD = RandomGate
