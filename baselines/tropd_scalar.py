"""TrOPD as reports describe its recipe: every term is a scalar advantage."""

from dataclasses import dataclass, replace

import torch

from baselines.fkl_scalar import scalar_forward_kl
from baselines.tropd_scalar_prefix import TrOPDScalarPrefix
from harness.types import SignalRequest, TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class TrOPDScalar(TrOPDScalarPrefix):
    """TrOPD (scalar): the outlier's forward KL enters as the advantage of the sampled token.

    TrOPD (arXiv 2606.01249) as reports describe its recipe.

        A_t = M·r + (1−M)·max(−FKL_k, floor) on the student's tokens,   A_t = β·(log π_S − log π_T) on the prefix

    Expected, the outlier term is FKL_k·Σ_x min(π_S, π_T)·∇ log π_S: it pushes rejected tokens down and imitates
    nothing. Against baselines/tropd_scalar_prefix.py only the outlier term differs.

    Other code: the recipe on verl that is reported for TrOPD; whether it clamps FKL_k, and at what, is not known.

    Readings: the top k is not renormalised, although one report takes it to be (see baselines/tropd.py).

    Deviations: the floor, since FKL_k is unbounded.
    """

    floor: float = -5.0  # smallest outlier advantage, nats; ours, a safeguard

    def request(self, progress: float) -> SignalRequest:
        """The outlier's number is a sum over the teacher's top k."""
        return SignalRequest(teacher_topk=True, student_at_topk=True)

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """As its base, with the direct term of every outlier replaced by an advantage."""
        credit = super().credit(batch, teacher, student, progress)
        penalty = scalar_forward_kl(teacher, student, self.floor)
        return replace(
            credit,
            advantages=torch.where(credit.divergence_weights > 0, penalty, credit.advantages),
            divergence_weights=torch.zeros_like(credit.divergence_weights),
        )


METHOD = TrOPDScalar
