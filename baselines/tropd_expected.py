"""TrOPD with the trust probability in place of the draw."""

from dataclasses import dataclass, replace

from baselines.tropd import TrOPD
from harness.types import TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class TrOPDExpected(TrOPD):
    """TrOPD (expected mask): P_trust in place of the Bernoulli draw.

    A row of ours, the conditional expectation over M of J^TrOPD (arXiv 2606.01249).

        J^On_x = P·r·log π_S(x) − (1−P)·Σ_{v∈TopK(π_T)} π_T(v)·log(π_T(v)/π_S(v)),   P = sg[min(π_T(x)/π_S(x), 1)]

    The same expected gradient with less variance; a negative advantage is at least −1/e. Guidance as in
    baselines/tropd.py.
    """

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = P·r; divergence_weight = 1 − P; imitation_weight = β on the prefix."""
        reward = teacher.logprobs - student.logprobs
        trust = self.trust_probability(reward)
        return replace(
            super().credit(batch, teacher, student, progress),
            advantages=trust * reward,
            divergence_weights=(1 - trust) * batch.on_policy_mask,
        )


METHOD = TrOPDExpected
