"""TrOPD with AOPD's forward KL added."""

from dataclasses import dataclass, replace

import torch

from baselines.aopd import unsupported
from baselines.tropd import TrOPD
from harness.types import TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class TrOPDAOPD(TrOPD):
    """TrOPD+AOPD: TrOPD, with the forward KL also on the trusted tokens that AOPD's gate selects.

    Row "TrOPD+AOPD" of TrOPD (arXiv 2606.01249), after AOPD, arXiv 2605.06387.

        advantage = M·r,   divergence weight = (1−M) + G·1[M = 1],   G = 1[π_T(x) − π_S(x) ≤ τ]

    Guidance as in baselines/tropd.py.

    Other code: as of baselines/tropd.py.

    Readings: "adding the AOPD objective for the AOPD positive samples" adds the forward KL on tokens with G = 1 on top
    of TrOPD. Every outlier has G = 1 already and is not counted twice, so the weight is at most 1; the K1 credit of
    trusted tokens is kept.

    Deviations: mean over tokens, as TrOPD, not per sequence, as AOPD.
    """

    threshold: float = 0.0  # τ of AOPD's gate, a probability difference; its paper's

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """As TrOPD, with divergence_weight = max(1 − M, G)."""
        credit = super().credit(batch, teacher, student, progress)
        gate = unsupported(teacher, student, self.threshold) & batch.on_policy_mask
        weights = torch.maximum(credit.divergence_weights, gate.to(credit.divergence_weights.dtype))
        return replace(credit, divergence_weights=weights)


METHOD = TrOPDAOPD
