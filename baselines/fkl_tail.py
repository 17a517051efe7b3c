"""Forward KL on the teacher's top k and one atom for the rest of the vocabulary."""

from dataclasses import dataclass, replace

from baselines.fkl_direct import FKLDirect
from harness.divergences import tail_forward_kl
from harness.types import TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class FKLTail(FKLDirect):
    """FKL with a tail bucket: the direct forward KL, with the mass outside of the top k as one more atom.

    The tail atom of Tail-Aware OPD (arXiv 2608.14728), here in a forward KL.

        L_t = Σ_{v∈TopK(π_T)} π_T(v)·log(π_T(v)/π_S(v)) + (1−m_T)·log((1−m_T)/(1−m_S)),   m = Σ_{v∈TopK(π_T)} π(v)

    A true KL on k+1 atoms, so its minimiser leaves the tail its mass. No knobs.

    Other code: TRL's `loss_add_tail` appends the same atom.

    Deviations: that paper adds the atom to a reverse KL.
    """

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """As FKL (direct), with the tail's divergence."""
        return replace(super().credit(batch, teacher, student, progress), divergence=tail_forward_kl)


METHOD = FKLTail
