"""AOPD: a hard gate on the teacher's support, forward KL where it closes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.types import Method, TokenBatch, TokenCredit, TokenSignal


def unsupported(teacher: TokenSignal, student: TokenSignal, threshold: float) -> Tensor:
    """AOPD's gate G = 1[π_T(x) − π_S(x) ≤ threshold], [B, T] bool; a difference of probabilities."""
    return teacher.logprobs.exp() - student.logprobs.exp() <= threshold


@dataclass(frozen=True)
class AOPD(Method):
    """AOPD: OPD where the teacher likes the token more than the student does, forward KL elsewhere.

    arXiv 2605.06387, Eq. 10; row "AOPD" of TrOPD (arXiv 2606.01249).

        L = E_y[(1/|y|)·Σ_t (G_t·FKL_k + (1−G_t)·(−r·log π_S(x_t)))],   G_t = 1[π_T(x_t) − π_S(x_t) ≤ τ]

    The mean over tokens is taken per sequence, so the credit of a token is rescaled by (student tokens of the step /
    sequences) / |y|.

    Other code: none found.

    Readings: |y| counts the student's tokens; a prefix would not count.

    Deviations: k is the Setting's, equal for all methods (the paper's was not found).
    """

    threshold: float = 0.0  # τ, a probability difference; the paper's. −1 is OPD, 1 is forward KL everywhere

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = (1−G)·r and divergence_weight = G, both rescaled to a mean over sequences."""
        reward = teacher.logprobs - student.logprobs
        own = batch.on_policy_mask
        lengths = own.sum(1, keepdim=True)  # |y|, [B, 1]
        scale = own.sum() / (lengths > 0).sum().clamp_min(1) / lengths.clamp_min(1)
        gate = unsupported(teacher, student, self.threshold) & own
        zeros = torch.zeros_like(reward)
        return TokenCredit(
            advantages=torch.where(gate, zeros, reward) * scale,
            divergence_weights=gate * scale.to(reward.dtype),
            imitation_weights=zeros,
            metrics={"gated_frac": (gate.sum() / own.sum().clamp_min(1)).item()},
        )


METHOD = AOPD
