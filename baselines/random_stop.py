"""A null for the stop: learning ends as often and as early, but not where the rollout goes off the track."""

from dataclasses import dataclass

from baselines.fkl_stop import hard_outliers, stop_after
from baselines.tropd_stop import TrOPDStop
from harness.types import TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class RandomStop(TrOPDStop):
    """Random stop: TrOPD with a stop at the place where another rollout of the step has its first hard outlier.

    A row of ours, a null for `tropd_stop` without guidance: what that gains over this row is gained by where it stops,
    not by how often or how early.

        credit_t = credit_t of TrOPD · 1[no t' < t with log π_T − log π_S < stop_below in the rollout before, at t']

    The rollout before is the one that stands before this one in the step; the first one's is the last. A place behind
    the end of a rollout stops nothing, and neither does one in a teacher's prefix: so there is none by default.
    """

    prefix_schedule: str = "none"  # the stop's places are of rollouts that begin where they do

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """As TrOPD up to and including the borrowed place, 0 after it."""
        credit = super(TrOPDStop, self).credit(batch, teacher, student, progress)  # without the stop of its own
        hard = hard_outliers(batch, teacher, student, threshold=self.stop_below)
        return stop_after(credit, batch, hard.roll(1, dims=0) & batch.on_policy_mask)


METHOD = RandomStop
