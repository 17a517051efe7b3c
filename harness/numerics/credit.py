"""Credit to loss: the only place, besides harness.divergences, where a gradient begins.

    loss = − Σ advantage·log π_S(x)                          on the sampled token
           + Σ divergence_weight·D(teacher, student)         direct gradient, on the method's support
           + Σ imitation_weight·(−log π_S(x))                on tokens that the student did not write

Every token's share is divided by the step's global count of tokens of its origin (written by the student, or not), over
all micro-batches: one denominator per origin, the same for all methods, never a mean of means.

Shape legend: B sequences, T completion positions, N valid tokens of a micro-batch, R of them with a divergence weight.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.types import TokenBatch, TokenCredit


@dataclass(frozen=True)
class Coefficients:
    """What multiplies each token's three terms, all [B, T], already divided by the global counts and zero outside the
    masks.
    """

    policy: Tensor  # × −log π_S(x), the advantage's share
    divergence: Tensor  # × D
    imitation: Tensor  # × −log π_S(x)


def compute_coefficients(credit: TokenCredit, batch: TokenBatch) -> Coefficients:
    """Checks a method's credit and divides it by the step's token counts.

    `batch` is the whole optimiser step. Values outside the masks are dropped before any arithmetic, so NaN there is
    harmless; a non-finite value on a valid token raises FloatingPointError. An advantage counts on student tokens only,
    an imitation weight on the others only.
    """
    student, other = batch.on_policy_mask, batch.prefix_mask
    denominators = torch.where(student, student.sum(), other.sum()).clamp_min(1)
    columns = {
        "advantages": (credit.advantages, student),
        "divergence_weights": (credit.divergence_weights, student | other),
        "imitation_weights": (credit.imitation_weights, other),
    }
    divided = []
    for name, (values, mask) in columns.items():
        if values.shape != batch.labels.shape:
            raise ValueError(f"{name} has shape {tuple(values.shape)}, the step has {tuple(batch.labels.shape)}")
        zero = torch.zeros((), dtype=values.dtype, device=values.device)
        valid = torch.where(mask, values.detach(), zero)
        if not torch.isfinite(valid).all():
            raise FloatingPointError(f"{name} holds a non-finite value on a valid token")
        divided.append(valid / denominators)
    if (divided[1] < 0).any():
        raise ValueError("divergence_weights must not be negative")
    return Coefficients(*divided)


def importance_ratios(batch: TokenBatch, trainer_logprobs: Tensor, cap: float) -> Tensor:
    """ρ [B, T]: min(π_trainer / π_engine, cap) on the student's own tokens, 1 elsewhere; a number, without gradient.

    Corrects for an engine whose probabilities differ from the trainer's (another kernel, another precision), truncated
    as in Yao et al., "Your efficient RL framework secretly brings you off-policy RL training".
    """
    difference = torch.where(batch.on_policy_mask, trainer_logprobs.detach() - batch.rollout_logprobs, 0.0)
    return torch.where(batch.on_policy_mask, difference.exp().clamp_max(cap), 1.0)


@dataclass(frozen=True)
class LossTerms:
    """The three sums of one micro-batch, scalars with gradient."""

    policy: Tensor
    divergence: Tensor
    imitation: Tensor

    def total(self) -> Tensor:
        """Their sum: what is back-propagated."""
        return self.policy + self.divergence + self.imitation


def compute_loss_terms(
    logprobs: Tensor, policy: Tensor, imitation: Tensor, divergences: Tensor, divergence_weights: Tensor
) -> LossTerms:
    """The loss of one micro-batch.

    Args: logprobs [N] with gradient, of the sampled tokens; policy, imitation [N], coefficients; divergences [R]
    with gradient;
        divergence_weights [R], coefficients.
    """
    return LossTerms(
        policy=-(policy.detach() * logprobs).sum(),
        divergence=(divergence_weights.detach() * divergences).sum(),
        imitation=-(imitation.detach() * logprobs).sum(),
    )
