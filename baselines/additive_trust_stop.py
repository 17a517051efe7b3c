"""Additive trust until a rollout goes off the track."""

from dataclasses import dataclass

from baselines.additive_trust import AdditiveTrust
from baselines.fkl_stop import stop_after_hard_outlier
from harness.divergences import HARD_OUTLIER
from harness.types import TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class AdditiveTrustStop(AdditiveTrust):
    """Additive trust with a stop: nothing is learned after a rollout's first hard outlier.

    A method of ours; see baselines/additive_trust.py.

        credit_t = credit_t of additive trust · 1[no own token before t with log π_T − log π_S < stop_below]

    The outlier itself is still learned from: it keeps its penalty and the teacher's suggestion.
    """

    stop_below: float = HARD_OUTLIER  # nats; ours

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """As additive trust up to and including the first hard outlier, 0 after it."""
        credit = super().credit(batch, teacher, student, progress)
        return stop_after_hard_outlier(credit, batch, teacher, student, threshold=self.stop_below)


METHOD = AdditiveTrustStop
