"""The Jensen-Shannon row of TrOPD's Table 1: one sum on the top k, one sampled estimate."""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.divergences import log_mixture, teacher_to_mixture_kl
from harness.types import Method, TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class JSD(Method):
    """JSD: forward KL to the mixture on the top k, plus the sampled reverse part as an advantage.

    Row "JSD" of Table 1 of TrOPD (arXiv 2606.01249).

        L_t = β·Σ_{v∈TopK(π_T)} π_T(v)·log(π_T(v)/π_M(v)) + (1−β)·log(π_S(x)/π_M(x)),   π_M = β·π_T + (1−β)·π_S

    The whole gradient of the exact JSD is the expectation of the second part alone (the two gradients through π_M
    cancel), so the direct first sum is an extra pull towards the teacher; the exact JSD is baselines/gkd.py.

    Other code: as of baselines/tropd.py.

    Readings: no gradient route is named; the first sum is back-propagated, the second is a policy gradient with A_t =
    (1−β)·sg[log π_M(x) − log π_S(x)], which cannot fall below (1−β)·log(1−β).

    Deviations: none known.
    """

    beta: float = 0.5  # the teacher's share in the mixture, in (0, 1); the paper's

    def __post_init__(self) -> None:
        if not 0 < self.beta < 1:
            raise ValueError(f"beta must lie strictly between 0 and 1, not {self.beta}")

    def teacher_part(self, teacher_logprobs: Tensor, student_logprobs: Tensor) -> Tensor:
        """β·KL(π_T ‖ π_M) on the given ids, [N]."""
        return self.beta * teacher_to_mixture_kl(teacher_logprobs, student_logprobs, self.beta)

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = (1−β)·(log π_M − log π_S); divergence_weight = 1 with the first sum."""
        reward = log_mixture(teacher.logprobs, student.logprobs, self.beta) - student.logprobs
        return TokenCredit(
            advantages=(1 - self.beta) * reward,
            divergence_weights=batch.on_policy_mask.to(reward.dtype),
            imitation_weights=torch.zeros_like(reward),
            divergence=self.teacher_part,
        )


METHOD = JSD
