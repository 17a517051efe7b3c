"""TrOPD's guidance with outliers dropped in place of the gate."""

import math
from dataclasses import dataclass, replace

from baselines.mask_outlier import MaskOutlier
from baselines.tropd import TrOPD
from harness.types import TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class TrOPDMask(TrOPD):
    """TrOPD Mask: teacher prefixes as in TrOPD, tokens of very low reward dropped.

    Row "TrOPD Mask" of Table 1 of TrOPD (arXiv 2606.01249).

        J = 1[x ~ π_S]·1[r > τ]·r·log π_S(x) − β·1[x ~ π_T]·log(π_T(x)/π_S(x)),   r = sg[log π_T(x) − log π_S(x)]

    Guidance as in baselines/tropd.py.

    Other code: as of baselines/tropd.py.

    Readings: τ is static, as in row "Mask Outlier", whose credit is used; that the mask is Bernoulli in this row is
    possible, the paper does not say.

    Deviations: none known.
    """

    threshold: float = math.log(0.25)  # τ, nats; not stated by the paper, REOPOLD's floor

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = r where r > τ; imitation_weight = β on the prefix."""
        credit = MaskOutlier(self.threshold).credit(batch, teacher, student, progress)
        return replace(credit, imitation_weights=self.beta * batch.prefix_mask.to(credit.advantages.dtype))


METHOD = TrOPDMask
