"""Direct forward KL until a rollout goes off the track; and the stop itself, for the methods that share it."""

from dataclasses import dataclass, replace

import torch

from baselines.fkl_direct import FKLDirect
from harness.divergences import HARD_OUTLIER
from harness.types import TokenBatch, TokenCredit, TokenSignal


def stop_after_hard_outlier(
    credit: TokenCredit, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, threshold: float
) -> TokenCredit:
    """The same credit, 0 on all of a rollout's tokens after its first own token with r < threshold."""
    return stop_after(credit, batch, hard_outliers(batch, teacher, student, threshold=threshold))


def hard_outliers(batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, threshold: float) -> torch.Tensor:
    """[B, T] bool: the student's own tokens with r < threshold."""
    return ((teacher.logprobs - student.logprobs) < threshold) & batch.on_policy_mask


def stop_after(credit: TokenCredit, batch: TokenBatch, marked: torch.Tensor) -> TokenCredit:
    """The same credit, 0 on all of a rollout's tokens after its first marked one ([B, T] bool).

    That token keeps its credit. Stopped tokens still count in the denominator, as every token of the student does.
    """
    own = batch.on_policy_mask
    learned = marked.cumsum(1) - marked.long() == 0  # none strictly before
    stopped = (own & ~learned).sum() / own.sum().clamp_min(1)

    def kept(values: torch.Tensor) -> torch.Tensor:
        return torch.where(learned, values, torch.zeros_like(values))

    return replace(
        credit,
        advantages=kept(credit.advantages),
        divergence_weights=kept(credit.divergence_weights),
        imitation_weights=kept(credit.imitation_weights),
        metrics={**credit.metrics, "stopped_frac": stopped.item()},
    )


@dataclass(frozen=True)
class FKLStop(FKLDirect):
    """FKL with a stop: the direct forward KL, and nothing learned after a rollout's first hard outlier.

    A row of ours, an ablation of row "FKL" of Table 1 of TrOPD (arXiv 2606.01249).

        credit_t = credit_t of FKL (direct) · 1[no own token before t with log π_T − log π_S < stop_below]

    Off its distribution the teacher's suggestions may be worthless, and imitating them there may spread back into good
    contexts. The outlier itself is still learned from.
    """

    stop_below: float = HARD_OUTLIER  # nats; ours

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """As FKL (direct) up to and including the first hard outlier, 0 after it."""
        credit = super().credit(batch, teacher, student, progress)
        return stop_after_hard_outlier(credit, batch, teacher, student, threshold=self.stop_below)


METHOD = FKLStop
