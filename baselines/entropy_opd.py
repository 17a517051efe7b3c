"""OPD on the tokens where the student is most uncertain."""

import math
from dataclasses import dataclass

from baselines.reopold_2stage import REOPOLDTwoStage
from harness.types import Method, SignalRequest, TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class EntropyOPD(Method):
    """Entropy OPD: OPD on the 20% of the step's tokens with the highest student entropy.

    Row "Entropy OPD 20%" of TrOPD (arXiv 2606.01249), after Wang et al., arXiv 2506.01939.

        J = (1/Σ M)·Σ M·r·log π_S,   M = 1[H_S ≥ τ],   r = sg[log π_T(x) − log π_S(x)]

    τ keeps the given share of all student tokens of the step. This is the refinement stage of REOPOLD 2Stage without
    its floor, and is computed by it.

    Other code: the recipe that is reported for TrOPD holds a function for this mask which nothing calls.

    Readings: the sum is divided by the kept tokens, as in both works it builds on; TrOPD is silent.

    Deviations: none known.
    """

    share: float = 0.2  # share of the student's tokens that is kept; the paper's

    def request(self, progress: float) -> SignalRequest:
        """The filter reads the student's entropy."""
        return SignalRequest(student_entropy=True)

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = r·M·(student tokens / kept tokens)."""
        refinement = REOPOLDTwoStage(floor=-math.inf, t_switch=-math.inf, beta=self.share)
        return refinement.credit(batch, teacher, student, progress)


METHOD = EntropyOPD
