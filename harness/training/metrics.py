"""Numbers that every step reports, the same for all methods; a metric's comment says what it is averaged over."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from harness.divergences import HARD_OUTLIER
from harness.training.batches import Endings
from harness.types import TokenBatch, TokenCredit, TokenSignal, Writer


def step_metrics(
    batch: TokenBatch,
    endings: Endings,
    teacher: TokenSignal | None,
    student: TokenSignal | None,
    credit: TokenCredit,
) -> dict[str, float]:
    """Flat metrics of one optimiser step. Token averages are over the student's own tokens.

    A model that did not score the step is None, and what would need its log-probs is left out.
    """
    own = batch.on_policy_mask
    count = max(1, int(own.sum()))
    metrics = {
        "length/completion": float((own | batch.prefix_mask).sum(1).float().mean()),  # over sequences
        "length/prefix": float(batch.prefix_mask.sum(1).float().mean()),  # over sequences
        "truncated_frac": int((~endings.stopped.any(1)).sum()) / len(own),  # over sequences
        "credit/advantage": float(credit.advantages[own].sum()) / count,
        "credit/divergence_weight": float(credit.divergence_weights[own].sum()) / count,
        **{f"credit/{key}": float(value) for key, value in credit.metrics.items()},
    }
    if own.any() and student is not None:
        metrics["entropy/student"] = -float(student.logprobs[own].mean())  # sampled estimate, nats per token
    if own.any() and student is not None and teacher is not None:
        reward = (teacher.logprobs - student.logprobs)[own]
        trust = reward.clamp_max(0).exp()
        quantiles = quantiles_of(reward, (0.001, 0.01, 0.5, 0.99))
        metrics |= {
            "kl/reverse_k1": -float(reward.mean()),  # the sampled estimate of KL(student || teacher), nats per token
            "kl/total_variation": float((1 - trust).mean()),  # unbiased estimate of the mean total variation
            "outlier/frac": float(
                (batch.uniforms[own] >= trust).float().mean()
            ),  # tokens that a Bernoulli(P_trust) draw rejects
            "outlier/hard_frac": float((reward < HARD_OUTLIER).float().mean()),
            **{f"reward/{name}": q for name, q in zip(("q001", "q01", "q50", "q99"), quantiles, strict=True)},
        }
    if teacher is not None and teacher.entropy is not None:
        metrics["entropy/teacher"] = float(teacher.entropy[own].sum()) / count
    return metrics


def pass_metrics(
    batch: TokenBatch, writer: Writer, teacher: TokenSignal | None, student: TokenSignal | None
) -> dict[str, float]:
    """What the step cost in tokens: those written and used, by who wrote them, and those that a model scored.

    The student's log-probs of its own samples that were taken over from the sampling cost nothing.
    """
    own, other = float(batch.on_policy_mask.sum()), float(batch.prefix_mask.sum())
    taken_over = student is None or student.logprobs is batch.rollout_logprobs
    return {
        "tokens/student": own,
        "tokens/teacher": 0.0 if writer == "reference" else other,
        "tokens/reference": other if writer == "reference" else 0.0,
        "tokens/scored": 0.0 if teacher is None else own + other,
        "tokens/student_scored": 0.0 if taken_over else own + other,
    }


def stop_metrics(batch: TokenBatch, endings: Endings, teacher: TokenSignal | None) -> dict[str, float]:
    """The mean probability of any end token at the student's own tokens: where it stopped, and at the tokens where it
    did not.

    The student's is of the moment of sampling. A model whose engine or scorer does not give it (vLLM) is left out, and
    so is a place where the step has no token.
    """
    own, stopped = batch.on_policy_mask, endings.stopped
    recorded = not endings.stop_logprobs[own].isnan().any()
    places = {"at_end": own & stopped, "elsewhere": own & ~stopped}
    signals = {
        "student": endings.stop_logprobs if recorded else None,
        "teacher": teacher.stop_logprobs if teacher else None,
    }
    return {
        f"stop/{who}_{where}": float(logprobs[mask].exp().mean())
        for who, logprobs in signals.items()
        for where, mask in places.items()
        if logprobs is not None and mask.any()
    }


def mismatch_metrics(batch: TokenBatch, student: TokenSignal | None) -> dict[str, float]:
    """|log π_engine − log π_trainer| on the student's own tokens, nats: how far the engine is from what is trained.

    Exactly 0 where the engine's log-probs are taken over (trainer.Machinery.engine_is_trainer); left out where the
    trainer did not score (None).
    """
    own = batch.on_policy_mask
    if student is None or not own.any():
        return {}
    difference = (batch.rollout_logprobs - student.logprobs)[own].abs()
    return {"mismatch/mean": float(difference.mean()), "mismatch/max": float(difference.max())}


def ratio_metrics(batch: TokenBatch, ratios: Tensor, cap: float) -> dict[str, float]:
    """The importance ratio on the student's own tokens, and the share of them that the cap changed."""
    own = ratios[batch.on_policy_mask]
    return (
        {"ratio/mean": float(own.mean()), "ratio/capped_frac": float((own >= cap).float().mean())}
        if own.numel()
        else {}
    )


def quantiles_of(values: Tensor, shares: Sequence[float]) -> list[float]:
    """Quantiles of the values [N], linear between two of them. torch.quantile refuses more than 2^24, and a step of the
    paper's size may have as many tokens.
    """
    places = [share * (len(values) - 1) for share in shares]
    around = sorted({edge(place) for place in places for edge in (math.floor, math.ceil)})
    ordered = torch.from_numpy(np.partition(values.numpy(), around))  # at these places alone; a sort takes longer
    return [
        float(torch.lerp(ordered[math.floor(place)], ordered[math.ceil(place)], place - math.floor(place)))
        for place in places
    ]
