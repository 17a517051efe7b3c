"""REOPOLD as it stands in TrOPD's tables: the reward is floored."""

import math
from dataclasses import dataclass

import torch

from harness.types import Method, TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class REOPOLD(Method):
    """REOPOLD, clip form: OPD with the reward floored.

    Ko et al., arXiv 2603.11137, Eq. 7; row "REOPOLD" of TrOPD (arXiv 2606.01249), which equals its row "Clip Outlier"
    in every digit.

        A_t = max(sg[log π_T(x_t) − log π_S(x_t)], floor),   floor = log(λ/(1−λ))

    The two-stage form is baselines/reopold_2stage.py.

    Other code: none found.

    Readings: neither paper states the floor; λ = 0.2 is read off a sensitivity plot of the REOPOLD paper, hence log
    0.25 = −1.386.

    Deviations: the floor alone, as in TrOPD's row; REOPOLD itself has the two stages too.
    """

    floor: float = math.log(0.25)  # smallest reward, nats

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = max(r, floor)."""
        reward = teacher.logprobs - student.logprobs
        zeros = torch.zeros_like(reward)
        return TokenCredit(advantages=reward.clamp_min(self.floor), divergence_weights=zeros, imitation_weights=zeros)


METHOD = REOPOLD
