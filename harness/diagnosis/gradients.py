"""Every method's gradient on the same completions, by the trainer's own scoring, credit and loss.

Shape legend: B completions of a batch, L tokens of a padded sequence, N token positions with credit, H hidden width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.diagnosis.projection import ALL, Projection, Sketch
from harness.divergences import exact_reverse_kl
from harness.models.backbone import evaluating, hidden_states
from harness.models.head import head_of
from harness.numerics.loss import Targets, head_loss
from harness.scoring import Completion, ScoreRequest, WholeScored
from harness.scoring.hf import HFScorer
from harness.training.step import micro_batches
from harness.training.trainer import DistillationTrainer, Written
from harness.types import Method, Rollout, SignalRequest, TokenBatch, TokenCredit, TokenSignal

WORST = 0.01  # share of the tokens: those that the teacher likes least, by log π_T − log π_S


@dataclass(frozen=True)
class WholeDivergence(Method):
    """A divergence over the whole vocabulary on each of the student's tokens, back-propagated: what the cosines are
    with.
    """

    reverse: bool

    def request(self, progress: float) -> SignalRequest:
        """The support is the whole shared vocabulary."""
        return SignalRequest(full_vocabulary=True)

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """divergence_weight = 1; without a divergence of its own the trainer takes the forward KL."""
        zeros, ones = torch.zeros_like(batch.rollout_logprobs), batch.on_policy_mask.to(batch.rollout_logprobs.dtype)
        return TokenCredit(zeros, ones, zeros, exact_reverse_kl if self.reverse else None)


REFERENCES: Mapping[str, Method] = {
    "reverse KL": WholeDivergence(reverse=True),
    "forward KL": WholeDivergence(reverse=False),
}


@dataclass
class Remembering:
    """A scorer that answers every method from one pass: it is asked at once for all that any of them reads."""

    scorer: HFScorer
    widest: ScoreRequest
    _answers: dict[bool, tuple[Sequence[Completion], WholeScored]] = field(default_factory=dict)

    def score(self, completions: Sequence[Completion], request: ScoreRequest) -> WholeScored:
        """See Scorer."""
        at_ids = request.at_ids
        before = self._answers.get(at_ids is not None)
        if before is None or before[0] != completions:
            asked = self.widest if at_ids is None else replace(self.widest, top_k=0, at_ids=at_ids)
            before = self._answers[at_ids is not None] = (completions, self.scorer.score(completions, asked))
        return before[1]


@dataclass(frozen=True)
class BatchGradient:
    """A method's gradient on one batch of completions."""

    sketch: Sketch
    token_norms: Tensor  # [n], |∂loss/∂h| at the last hidden state that predicts each of the batch's tokens


def batch_gradients(
    trainers: Mapping[str, DistillationTrainer], rollouts: Sequence[Rollout], projection: Projection
) -> dict[str, BatchGradient]:
    """Every method's gradient on the same completions, at the beginning of training; one forward pass for all.

    A method's credit is what it would be if these completions were a step: its denominators are those of the batch.
    """
    student: PreTrainedModel = next(iter(trainers.values())).machinery.student
    found = {}
    with evaluating(student), torch.enable_grad():
        states: Tensor | None = None
        for name, trainer in trainers.items():
            with torch.no_grad():
                step = trainer.assign_credit(Written(list(rollouts)), 0.0, range(len(rollouts)))
            (batch,) = micro_batches(step, [len(rollouts)])
            if states is None:
                states = hidden_states(student, batch["input_ids"].to(student.device), use_cache=False)[0]
            gradients, norms = _gradient(student, trainer, batch, states, projection=projection)
            used = torch.stack([c != 0 for c in vars(step.coefficients).values()]).any(0)
            token_norms = torch.zeros(used.shape, dtype=norms.dtype)
            token_norms[used] = norms
            found[name] = BatchGradient(projection.project(gradients), token_norms[step.batch.on_policy_mask])
    return found


def _gradient(
    student: PreTrainedModel,
    trainer: DistillationTrainer,
    batch: dict[str, Any],
    states: Tensor,
    projection: Projection,
) -> tuple[list[Tensor | None], Tensor]:
    """Of each parameter, and the norm [N] at each position's last state. `states` [B, L, H] keep their graph."""
    device = states.device
    rows = batch["rows"].to(device)
    targets = Targets(**{k: _moved(v, device) for k, v in batch.items() if k not in ("input_ids", "rows")})
    leaf = states.detach().flatten(0, 1)[rows].requires_grad_()
    parameters = list(projection.parameters.values())
    vocab_size, ends = trainer.machinery.vocab_size, trainer.sampling.end_ids
    head = head_of(student, student.get_output_embeddings().weight.shape[0], ends)
    loss, _ = head_loss(leaf, head, vocab_size, targets)
    at_states, *of_head = torch.autograd.grad(loss, [leaf, *parameters], allow_unused=True)
    whole = torch.zeros_like(states).flatten(0, 1).index_add_(0, rows, at_states).view_as(states)
    below = torch.autograd.grad(states, parameters, whole, retain_graph=True, allow_unused=True)
    sums: list[Tensor | None] = [
        b if a is None else a if b is None else a + b for a, b in zip(of_head, below, strict=True)
    ]
    return sums, at_states.norm(dim=-1).cpu()


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


@dataclass(frozen=True)
class GradientSummary:
    """A method's gradient over independent batches."""

    norm: float  # of one batch, mean
    signal_to_noise: float  # of one batch: |expected gradient| over the root mean square deviation from it
    cosine_reverse: dict[str, float]  # of the mean gradient with the exact reverse KL's, by group
    cosine_forward: dict[str, float]  # with the forward KL's
    worst_share: float  # of Σ|∂loss/∂h|, from the worst tokens


def summarise(
    found: Mapping[str, Sequence[BatchGradient]], rewards: Tensor, groups: Sequence[str]
) -> dict[str, GradientSummary]:
    """One row a method. `rewards` [N]: log π_T − log π_S of the tokens of all batches, as their norms come."""
    worst = rewards <= rewards.kthvalue(max(1, round(WORST * len(rewards)))).values
    summaries = {}
    for name, batches in found.items():
        norms = torch.cat([batch.token_norms for batch in batches])
        cosines = [
            {group: cosine(mean_of(batches, group), mean_of(found[reference], group)) for group in (ALL, *groups)}
            for reference in REFERENCES
        ]
        summaries[name] = GradientSummary(
            norm=sum(batch.sketch.norm for batch in batches) / len(batches),
            signal_to_noise=signal_to_noise(torch.stack([batch.sketch.vector(ALL) for batch in batches])),
            cosine_reverse=cosines[0],
            cosine_forward=cosines[1],
            worst_share=float(norms[worst].sum() / norms.sum().clamp_min(torch.finfo(norms.dtype).tiny)),
        )
    return summaries


def mean_of(batches: Sequence[BatchGradient], group: str) -> Tensor:
    """The mean gradient, projected."""
    return torch.stack([batch.sketch.vector(group) for batch in batches]).mean(0)


def cosine(a: Tensor, b: Tensor) -> float:
    """Of two vectors; 0 where one of them is 0."""
    product = float(a.norm() * b.norm())
    return float(a @ b) / product if product else 0.0


def signal_to_noise(gradients: Tensor) -> float:
    """Of one of K independent gradients [K, n]: √max(|ḡ|² − S/K, 0) over √S, S = Σ|g_k − ḡ|²/(K − 1).

    |ḡ|² of the mean of K overestimates the squared norm of the expected gradient by S/K, which is taken off. 0 where
    all gradients are 0.
    """
    count, mean = len(gradients), gradients.mean(0)
    noise = float((gradients - mean).square().sum()) / (count - 1)
    signal = max(float(mean.square().sum()) - noise / count, 0.0)
    return (signal / noise) ** 0.5 if noise else 0.0
