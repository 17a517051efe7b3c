"""Entropy-aware OPD: forward KL added where the teacher is uncertain."""

from dataclasses import dataclass

import torch

from harness.types import Method, SignalRequest, TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class EOPD(Method):
    """EOPD: OPD on every token, plus the top-k forward KL where the teacher's entropy is high.

    Jin et al., arXiv 2603.07079; the form of its public code.

        L_t = L_t^OPD + α·1[H_T(s_t) ≥ τ]·Σ_{v∈TopK(π_T)} π_T(v)·(log π_T(v) − log π_S(v))

    The second term is additive (not a switch), summed over gated tokens and divided by all student tokens.

    Other code: the authors' (WLS04/EOPD), with this additive form, not renormalised and not clamped; k is 16 in the
    paper and 32 in the code's example.

    Readings: TrOPD's tables do not state α and τ; they are EOPD's own.

    Deviations: k is the Setting's, equal for all methods (TrOPD's tables: 64); each rollout batch is used for one
    update, so no ratio is clipped (the paper: four updates).
    """

    alpha: float = 1.0  # weight of the forward KL, dimensionless; the paper's
    entropy_threshold: float = 0.8  # τ, nats, of the teacher's full-vocabulary entropy; the official code's

    def request(self, progress: float) -> SignalRequest:
        """The gate reads the teacher's entropy."""
        return SignalRequest(teacher_entropy=True)

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = r; divergence_weight = α where H_T ≥ τ."""
        assert teacher.entropy is not None  # requested
        reward = teacher.logprobs - student.logprobs
        gate = (teacher.entropy >= self.entropy_threshold) & batch.on_policy_mask
        count = batch.on_policy_mask.sum().clamp_min(1)
        metrics = {"gated_frac": (gate.sum() / count).item()}
        # where `entropy` is a lower bound, the gate may be shut where it should be open
        if teacher.entropy_upper is not None:
            unsure = (teacher.entropy_upper >= self.entropy_threshold) & batch.on_policy_mask & ~gate
            metrics["gate_unsure_frac"] = (unsure.sum() / count).item()
        return TokenCredit(
            advantages=reward,
            divergence_weights=self.alpha * gate.to(reward.dtype),
            imitation_weights=torch.zeros_like(reward),
            metrics=metrics,
        )


METHOD = EOPD
