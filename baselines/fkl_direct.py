"""Forward KL on the teacher's top k, alone, on every token that the student wrote."""

from dataclasses import dataclass

import torch

from harness.types import Method, TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class FKLDirect(Method):
    """FKL (direct): the top-k forward KL alone, back-propagated into the student's logits.

    Row "FKL" of Table 1 of TrOPD (arXiv 2606.01249), read as its formula is printed.

        L_t = Σ_{v∈TopK(π_T)} π_T(v)·(log π_T(v) − log π_S(v))   on every token x_t ~ π_S

    Nothing flows through the sampling. No knobs.

    Other code: verl's top-k distillation loss back-propagates this sum (k = 32), clamped at 0 from below, which
    silences the gradient wherever the sum is negative.

    Readings: the teacher is not renormalised on the top k, as printed (see baselines/tropd.py). The printed score
    (average 1.40) is more likely that of the scalar reading, baselines/fkl_scalar.py.

    Deviations: none from the formula.
    """

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """divergence_weight = 1 on the student's tokens."""
        zeros = torch.zeros_like(teacher.logprobs)
        return TokenCredit(
            advantages=zeros, divergence_weights=batch.on_policy_mask.to(zeros.dtype), imitation_weights=zeros
        )


METHOD = FKLDirect
