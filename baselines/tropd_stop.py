"""TrOPD until a rollout goes off the track."""

from dataclasses import dataclass

from baselines.fkl_stop import stop_after_hard_outlier
from baselines.tropd import TrOPD
from harness.divergences import HARD_OUTLIER
from harness.types import TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class TrOPDStop(TrOPD):
    """TrOPD with a stop: nothing is learned after a rollout's first hard outlier.

    A row of ours, an ablation of TrOPD (arXiv 2606.01249).

        credit_t = credit_t of TrOPD · 1[no own token before t with log π_T − log π_S < stop_below]

    The prefix and the outlier itself are still learned from. Guidance as in baselines/tropd.py.
    """

    stop_below: float = HARD_OUTLIER  # nats; ours

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """As TrOPD up to and including the first hard outlier, 0 after it."""
        credit = super().credit(batch, teacher, student, progress)
        return stop_after_hard_outlier(credit, batch, teacher, student, threshold=self.stop_below)


METHOD = TrOPDStop
