"""TrOPD's guidance with the reward floored in place of the gate."""

import math
from dataclasses import dataclass, replace

from baselines.clip_outlier import ClipOutlier
from baselines.tropd import TrOPD
from harness.types import TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class TrOPDClip(TrOPD):
    """TrOPD Clip: teacher prefixes as in TrOPD, the reward floored on the student's own tokens.

    Row "TrOPD Clip" of Table 1 of TrOPD (arXiv 2606.01249).

        J = 1[x ~ π_S]·max(r, floor)·log π_S(x) − β·1[x ~ π_T]·log(π_T(x)/π_S(x)),   r = sg[log π_T(x) − log π_S(x)]

    Guidance as in baselines/tropd.py.

    Other code: as of baselines/tropd.py.

    Readings: the floor is static, as in row "Clip Outlier", whose credit is used; that the gate stays Bernoulli in this
    row is possible, the paper does not say.

    Deviations: none known.
    """

    floor: float = math.log(0.25)  # smallest reward, nats; not stated by the paper, REOPOLD's

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = max(r, floor); imitation_weight = β on the prefix."""
        credit = ClipOutlier(self.floor).credit(batch, teacher, student, progress)
        return replace(credit, imitation_weights=self.beta * batch.prefix_mask.to(credit.advantages.dtype))


METHOD = TrOPDClip
