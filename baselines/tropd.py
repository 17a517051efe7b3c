"""TrOPD: reverse-KL credit where the teacher supports the token, forward KL elsewhere, teacher prefixes early on."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.types import Method, TokenBatch, TokenCredit, TokenSignal

PREFIX_SCHEDULES = ("own_length", "annealed_maximum", "uniform", "none")


@dataclass(frozen=True)
class TrOPD(Method):
    """TrOPD: trust-region OPD.

    arXiv 2606.01249, J^On and J^TrOPD:

        J^On_x = M·r·log π_S(x) − (1−M)·Σ_{v∈TopK(π_T)} π_T(v)·log(π_T(v)/π_S(v)),   r = sg[log π_T(x) − log π_S(x)]
        M ~ Bernoulli(P_trust),   P_trust = min(π_T(x)/π_S(x), 1)
        J^TrOPD = 1[x ~ π_S]·J^On − β·1[x ~ π_T]·log(π_T(x)/π_S(x))

    Prefix: the first ⌊α·L⌋ tokens of a cached teacher response of length L, α = (1 + cos(π·progress))/2; the student
    writes on from there.

    Other code: the copy of the authors' repository that could be read (May 2026) holds none; reports describe a recipe
    on verl in which every term is a scalar advantage (baselines/tropd_scalar.py). An independent fork of TRL
    back-propagates the outlier term, as here, without prefixes.

    Readings: r enters as a policy-gradient advantage; M is drawn once per token from the stream `credit`, without
    gradient; the outlier term is the printed one (direct gradient); the prefix term is its own gradient, −β·log π_S(x);
    "maximum length annealed" is read as a share of the response's own length, the other readings are values of
    `prefix_schedule`. Open: whether the teacher is renormalised on its top 64. It is not in print, and not here; if it
    were, the outlier term's gradient would be 1/m times ours, m being the teacher's mass there, so that the two differ
    by at most 2(1 − m) in sum over the logits (tests/baselines/test_renormalised_topk.py); 0.97 to 0.99 is reported for
    m with k = 16 to 64.

    Deviations: for `annealed_maximum` and `uniform` the maximum is the longest response of the step's prompts; each
    rollout batch is used for one update, so no ratio is clipped.
    """

    beta: float = 1e-3  # weight of the prefix imitation term, dimensionless; the paper's
    prefix_schedule: str = "own_length"  # own_length: ⌊αL⌋ | annealed_maximum: ⌊α·max L⌋ | uniform: ⌊u·α·max L⌋ | none

    def __post_init__(self) -> None:
        if self.prefix_schedule not in PREFIX_SCHEDULES:
            raise ValueError(
                f"prefix_schedule must be one of {', '.join(PREFIX_SCHEDULES)}, not {self.prefix_schedule!r}"
            )

    def needs_teacher_responses(self) -> bool:
        """Prefixes come from cached responses."""
        return self.prefix_schedule != "none"

    def prefix_lengths(self, progress: float, response_lengths: Tensor, uniforms: Tensor) -> Tensor:
        """The schedule, [P] tokens; see the class docstring."""
        alpha = (1 + math.cos(math.pi * progress)) / 2
        longest = torch.full_like(response_lengths, int(response_lengths.max()))
        lengths = {
            "own_length": alpha * response_lengths,
            "annealed_maximum": alpha * longest,
            "uniform": uniforms * alpha * longest,
            "none": torch.zeros_like(uniforms),
        }[self.prefix_schedule]
        return torch.minimum(lengths.floor().long(), response_lengths)

    def trust_probability(self, reward: Tensor) -> Tensor:
        """P_trust = min(e^r, 1), in log space so that a large r cannot overflow."""
        return reward.clamp_max(0).exp()

    def draw_mask(self, reward: Tensor, batch: TokenBatch) -> Tensor:
        """M, [B, T] bool: one Bernoulli(P_trust) draw for each token that the student wrote."""
        return (batch.uniforms < self.trust_probability(reward)) & batch.on_policy_mask

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = M·r; divergence_weight = 1 − M; imitation_weight = β on the prefix."""
        reward = teacher.logprobs - student.logprobs
        trusted = self.draw_mask(reward, batch)
        outlier = batch.on_policy_mask & ~trusted
        return TokenCredit(
            advantages=torch.where(trusted, reward, torch.zeros_like(reward)),
            divergence_weights=outlier.to(reward.dtype),
            imitation_weights=self.beta * batch.prefix_mask.to(reward.dtype),
        )


METHOD = TrOPD
