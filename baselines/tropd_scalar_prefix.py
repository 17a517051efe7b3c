"""TrOPD with the prefix term as a scalar advantage."""

from dataclasses import dataclass, replace

from baselines.tropd import TrOPD
from harness.types import TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class TrOPDScalarPrefix(TrOPD):
    """TrOPD with a scalar prefix: the prefix term enters as an advantage on the teacher's token.

    The prefix term of TrOPD (arXiv 2606.01249) as reports describe its recipe.

        A_t = β·sg[log π_S(x) − log π_T(x)]   on prefix tokens x ~ π_T

    Its mean is −β·FKL ≤ 0, so it points away from imitation, where the printed term's own gradient is −β·log π_S(x).
    This is all that differs from baselines/tropd.py.

    Other code: the recipe on verl that is reported for TrOPD.

    Deviations: none known.
    """

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """As TrOPD, with imitation_weight = −β·r on the prefix (an advantage A is the weight of −log π_S, times A)."""
        credit = super().credit(batch, teacher, student, progress)
        return replace(credit, imitation_weights=credit.imitation_weights * (student.logprobs - teacher.logprobs))


METHOD = TrOPDScalarPrefix
