"""OPD with a baseline: the expected reward of the state, in closed form."""

from dataclasses import dataclass, replace

from baselines.opd import OPD
from harness.divergences import exact_reverse_kl, with_tail
from harness.types import SignalRequest, TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class VOPD(OPD):
    """vOPD: OPD minus the state's expected reward, which is minus the reverse KL there.

    Oh et al., "KL for a KL", arXiv 2605.07865, with its top-k baseline.

        A_t = sg[r + KL(π_S ‖ π_T)(s_t)],   r = log π_T(x_t) − log π_S(x_t),   E_{x~π_S}[r] = −KL(π_S ‖ π_T)

    The baseline does not depend on the sampled token: same expected gradient as OPD, less variance. No knobs.

    Deviations: the KL is taken on the teacher's top k and one atom for the rest (k is the Setting's), a lower bound of
    the exact one; the paper sums over the student's own top k.
    """

    def request(self, progress: float) -> SignalRequest:
        """The baseline is a sum over the teacher's top k."""
        return SignalRequest(teacher_topk=True, student_at_topk=True)

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = r + KL."""
        assert teacher.topk_logprobs is not None  # requested
        assert student.topk_logprobs is not None
        credit = super().credit(batch, teacher, student, progress)
        rows = [with_tail(signal.flatten(0, 1)) for signal in (teacher.topk_logprobs, student.topk_logprobs)]
        baseline = exact_reverse_kl(*rows).reshape(teacher.logprobs.shape)
        return replace(credit, advantages=credit.advantages + baseline)


METHOD = VOPD
