"""OPD with a smooth floor: the teacher is mixed with the student before the log-ratio is taken."""

from dataclasses import dataclass

import torch

from harness.divergences import log_mixture
from harness.types import Method, TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class TOPD(Method):
    """TOP-D (smooth floor): OPD towards a proximal teacher, a mixture of teacher and student.

    TOP-D, arXiv 2607.04751, the proximal teacher (not TrOPD, although one toolkit's option is spelled TROPD).

        A_t = sg[log(α·π_T(x) + (1−α)·π_S(x)) − log π_S(x)] = log(α·e^r + 1 − α) ≥ log(1−α)
        r = log π_T(x) − log π_S(x)

    Other code: NeMo-RL's `proximal_teacher_alpha`; its documentation's example is 0.2, its default of 1 is OPD.

    Readings: the paper's own α was not found; it is that example's.

    Deviations: of the paper only the reward; not its length-normalised return, nor any trust-region step rule.
    """

    alpha: float = 0.2  # the teacher's share in the proximal teacher, in (0, 1); NeMo-RL's example

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie strictly between 0 and 1, not {self.alpha}")

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = log(α·e^r + 1 − α)."""
        reward = log_mixture(teacher.logprobs, student.logprobs, self.alpha) - student.logprobs
        zeros = torch.zeros_like(reward)
        return TokenCredit(advantages=reward, divergence_weights=zeros, imitation_weights=zeros)


METHOD = TOPD
