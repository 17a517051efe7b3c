"""One optimiser step, cut into micro-batches of sequences of similar lengths.

Shape legend: B sequences, T completion positions, N tokens of a micro-batch with any credit, R tokens with a divergence
weight, K support ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor

from harness.numerics.credit import Coefficients
from harness.numerics.loss import TeacherRows
from harness.numerics.padding import padded
from harness.types import Divergence, Rollout, TokenBatch

PerToken = TypeVar("PerToken", TokenBatch, Coefficients)


@dataclass(frozen=True)
class Step:
    """One optimiser step before it is cut into micro-batches."""

    rollouts: list[Rollout]
    batch: TokenBatch
    coefficients: Coefficients
    divergence: Divergence
    support: Support


@dataclass(frozen=True)
class Support:
    """Where the direct term is evaluated: all R rows of the step with a divergence weight, row-major."""

    ids: Tensor  # [R, K]
    logprobs: Tensor  # [R, K], the teacher's
    dense: TeacherRows | None = None  # the whole vocabulary instead, from R hidden states of the teacher

    def part(self, rows: slice | Tensor) -> Support:
        """Some of the R rows."""
        dense = None if self.dense is None else replace(self.dense, hidden=self.dense.hidden[rows])
        return Support(self.ids[rows], self.logprobs[rows], dense)


def micro_batches(step: Step, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Cuts the step into micro-batches of the given numbers of sequences, and each to its valid tokens only.

    Those of similar lengths come together, so that little is padded. Every micro-batch has as many sequences as it
    would have in the order of the step, and none is wider than the widest then: the peak of memory is the same.
    """
    step = _in_order(step, order_by_length([len(r.prompt_ids) + len(r.completion_ids) for r in step.rollouts], sizes))
    support_counts = _has_support(step).sum(1).tolist()
    batches, first, first_support = [], 0, 0
    for size in sizes:
        rows = slice(first, first + size)
        supports = sum(support_counts[rows])
        batches.append(_micro_batch(step, rows, slice(first_support, first_support + supports)))
        first, first_support = first + size, first_support + supports
    return batches


def order_by_length(lengths: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """The sequences of the micro-batches one after the other: those of similar lengths together, inside a micro-batch
    in the order of the step (all of it, where there is one micro-batch).

    The longest come first, so that memory that does not suffice is found at once, and all ranks are at lengths alike.
    """
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    ends = list(accumulate(sizes))
    return [i for end, size in zip(ends, sizes, strict=True) for i in sorted(longest_first[end - size : end])]


def _has_support(step: Step) -> Tensor:
    return step.coefficients.divergence > 0


def _in_order(step: Step, order: list[int]) -> Step:
    """The step with its sequences, and their rows of the support, in another order."""
    if order == list(range(len(order))):
        return step
    numbers = torch.arange(len(step.support.ids)).split(_has_support(step).sum(1).tolist())
    return replace(
        step,
        rollouts=[step.rollouts[i] for i in order],
        batch=cut(step.batch, order),
        coefficients=cut(step.coefficients, order),
        support=step.support.part(torch.cat([numbers[i] for i in order])),
    )


def cut(record: PerToken, rows: Sequence[int], width: int | None = None) -> PerToken:
    """Some rows, and the first positions, of a record of [B, T] tensors."""
    return type(record)(**{name: value[rows, :width] for name, value in vars(record).items()})


def _micro_batch(step: Step, rows: slice, support: slice) -> dict[str, Any]:
    """The arguments of the bound forward (harness.models.head): the fields of loss.Targets, and where they are."""
    rollouts = step.rollouts[rows]
    input_ids = padded([[*r.prompt_ids, *r.completion_ids] for r in rollouts])
    width = input_ids.shape[1]
    coefficients = [c[rows] for c in vars(step.coefficients).values()]
    used = torch.stack([c != 0 for c in coefficients]).any(0)  # other tokens are in no term of the loss
    sequence, position = used.nonzero(as_tuple=True)  # [N] each, row-major
    prompt_lengths = torch.tensor([len(r.prompt_ids) for r in rollouts])
    policy, divergence_weights, imitation = [c[used] for c in coefficients]
    part = step.support.part(support)
    return {
        "input_ids": input_ids,
        "rows": sequence * width + prompt_lengths[sequence] + position - 1,  # the state that predicts the token
        "token_ids": step.batch.labels[rows][used],
        "policy": policy,
        "imitation": imitation,
        "support_rows": (divergence_weights > 0).nonzero()[:, 0],
        "divergence_weights": divergence_weights[divergence_weights > 0],
        "divergence": step.divergence,
        "support_ids": part.ids,
        "teacher_logprobs": part.logprobs,
        "dense": part.dense,
    }
