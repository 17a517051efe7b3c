"""REOPOLD in full: the floored reward, filtered first by reward and then by student entropy."""

import math
from dataclasses import dataclass

import torch

from harness.types import Method, SignalRequest, TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class REOPOLDTwoStage(Method):
    """REOPOLD 2Stage: exploration keeps tokens of high reward, refinement keeps tokens of high student entropy.

    Ko et al., arXiv 2603.11137, Eqs. 4, 7, 8 and Algorithm 1; row "REOPOLD 2Stage" of TrOPD (arXiv 2606.01249).

        J = (1/Σ M)·Σ M·max(r, floor)·log π_S      M = 1[r ≥ floor] while progress < t_switch, then 1[H_S ≥ τ_β]

    The paper's step t counts from 1 and explores while t ≤ t_switch: that step has progress (t − 1) / steps.

    τ_β keeps the share β of the step's student tokens with the highest entropy. The paper divides by the kept tokens:
    the credit is rescaled by (student tokens / kept tokens), since the harness divides by student tokens.

    Other code: none found.

    Readings: floor, t_switch and β are not stated by the authors; floor = log(λ/(1−λ)) with λ = 0.2 as in
    baselines/reopold.py, t_switch = 100 of TrOPD's 200 steps, β = 0.2 as in its row "Entropy OPD 20%".

    Deviations: each rollout batch is used for one update, so the importance ratio is 1 and nothing is clipped.
    """

    floor: float = math.log(0.25)  # smallest reward, nats
    t_switch: float = 0.5  # share of the steps before the entropy filter takes over; progress is 0 at the first
    beta: float = 0.2  # share of student tokens that the entropy filter keeps

    def request(self, progress: float) -> SignalRequest:
        """Student entropy is read in the second stage only."""
        return SignalRequest(student_entropy=progress >= self.t_switch)

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = max(r, floor)·M·(student tokens / kept tokens)."""
        reward = teacher.logprobs - student.logprobs
        valid = batch.on_policy_mask
        if progress >= self.t_switch:
            assert student.entropy is not None  # requested
            keep = valid & (student.entropy >= _top_share_threshold(student.entropy[valid], self.beta))
        else:
            keep = valid & (reward >= self.floor)
        kept = keep.sum().clamp_min(1)
        zeros = torch.zeros_like(reward)
        advantages = torch.where(keep, reward.clamp_min(self.floor), zeros) * (valid.sum() / kept)
        return TokenCredit(
            advantages=advantages,
            divergence_weights=zeros,
            imitation_weights=zeros,
            metrics={"kept_frac": (keep.sum() / valid.sum().clamp_min(1)).item()},
        )


def _top_share_threshold(values: torch.Tensor, share: float) -> torch.Tensor:
    """The smallest of the ⌈share·n⌉ largest values: `values >= threshold` keeps that share (and ties)."""
    if not values.numel():
        return torch.tensor(math.inf)
    return values.topk(min(values.numel(), max(1, math.ceil(share * values.numel())))).values[-1]


METHOD = REOPOLDTwoStage
