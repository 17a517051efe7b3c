"""Forward KL as a scalar reward on the sampled token: a reading under which nothing is distilled."""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.divergences import topk_forward_kl
from harness.types import Method, SignalRequest, TokenBatch, TokenCredit, TokenSignal


def scalar_forward_kl(teacher: TokenSignal, student: TokenSignal, floor: float) -> Tensor:
    """max(−FKL_k, floor) per position, [B, T], nats: a number without gradient that ignores the sampled token."""
    assert teacher.topk_logprobs is not None  # requested
    assert student.topk_logprobs is not None
    rows = [signal.flatten(0, 1) for signal in (teacher.topk_logprobs, student.topk_logprobs)]
    return -topk_forward_kl(*rows).reshape(teacher.logprobs.shape).clamp_max(-floor)


@dataclass(frozen=True)
class FKLScalar(Method):
    """FKL (scalar): minus the top-k forward KL as the advantage of the sampled token, on every token.

    Row "FKL" of Table 1 of TrOPD (arXiv 2606.01249), read as reports describe its recipe.

        A_t = max(sg[Σ_{v∈TopK(π_T)} π_T(v)·(log π_S(v) − log π_T(v))], floor)

    A_t does not depend on the sampled token, so its expected gradient A_t·E[∇ log π_S(x)] is exactly 0, and where it is
    negative every sampled token is pushed down.

    Other code: the recipe on verl that is reported for TrOPD writes this number into the advantages; whether it clamps
    it is not known.

    Deviations: the floor, since the sum is unbounded below.
    """

    floor: float = -5.0  # smallest advantage, nats; ours, a safeguard

    def request(self, progress: float) -> SignalRequest:
        """The sum runs over the teacher's top k."""
        return SignalRequest(teacher_topk=True, student_at_topk=True)

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = max(−FKL_k, floor)."""
        zeros = torch.zeros_like(teacher.logprobs)
        return TokenCredit(
            advantages=scalar_forward_kl(teacher, student, self.floor),
            divergence_weights=zeros,
            imitation_weights=zeros,
        )


METHOD = FKLScalar
