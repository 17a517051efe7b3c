"""The reverse KL itself, over the whole vocabulary: what OPD estimates from one sampled token."""

from dataclasses import dataclass, replace

from baselines.fkl_direct import FKLDirect
from harness.divergences import exact_reverse_kl
from harness.types import SignalRequest, TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class ReverseKL(FKLDirect):
    """Exact reverse KL: KL(π_S ‖ π_T) over the whole vocabulary on every token, back-propagated.

    A row of ours; the token-level objective that OPD (Thinking Machines, 2025) estimates.

        L_t = Σ_v π_S(v)·(log π_S(v) − log π_T(v))   at the states that the student visits

    The same expected gradient as OPD, without the noise of one sampled token, at the price of both models' whole
    distributions. No knobs. Nothing flows through the sampling of the states, as in OPD.
    """

    def request(self, progress: float) -> SignalRequest:
        """The support is the whole shared vocabulary."""
        return SignalRequest(full_vocabulary=True)

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """divergence_weight = 1 on the student's tokens, with the exact reverse KL."""
        return replace(super().credit(batch, teacher, student, progress), divergence=exact_reverse_kl)


METHOD = ReverseKL
