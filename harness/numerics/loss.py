"""The loss of a micro-batch from its hidden states, in chunks, with its gradient made in the same pass.

The coefficients of every token are known before the forward pass, so each chunk's gradient with respect to its logits
is known as soon as its logits are: one buffer of logits at a time, three products with the head (none of them twice),
and nothing of the vocabulary's width kept but the head's own gradient. The three sums are credit.compute_loss_terms;
the derivative of the softmax is written out here.

Shape legend: N token positions, H hidden width, V shared vocabulary (the head may have more rows), R positions with a
divergence weight, K support ids; n and r the same of one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.numerics.credit import compute_loss_terms
from harness.numerics.logprobs import (
    IDENTITY,
    Head,
    arithmetic_dtype,
    head_blocks,
    logits_of,
    merge_,
    own_logits,
    rows_per_chunk,
    spread_,
)
from harness.types import Divergence

DENSE_BUFFERS = 8  # of the vocabulary's width, at a position whose divergence runs over the whole vocabulary


@dataclass(frozen=True)
class TeacherRows:
    """A teacher's hidden states and head, from which its whole distribution at R positions is made inside a chunk and
    never stored.
    """

    hidden: Tensor  # [R, H of the teacher]
    head: Head  # of V rows


@dataclass(frozen=True)
class Targets:
    """What the N positions of a micro-batch are trained on."""

    token_ids: Tensor  # [N]
    policy: Tensor  # [N], × −log π_S(token)
    imitation: Tensor  # [N], × −log π_S(token)
    support_rows: Tensor  # [R] ascending, which of the N have a divergence weight
    divergence_weights: Tensor  # [R]
    divergence: Divergence
    support_ids: Tensor  # [R, K]; unused with `dense`
    teacher_logprobs: Tensor  # [R, K]; likewise
    dense: TeacherRows | None = None  # the support is the whole vocabulary


def head_loss(
    hidden: Tensor, head: Head, vocab_size: int, targets: Targets, chunk_rows: int | None = None
) -> tuple[Tensor, Tensor]:
    """The loss, and its three terms.

    Differentiable in hidden and the head's weight and bias; float32 arithmetic (float64 if hidden is). Not twice
    differentiable.

    Args: hidden [N, H]; head: of ≥ V rows; vocab_size: V, rows of the head beyond it are left out of the softmax;
        chunk_rows: positions per chunk, None: as logprobs.rows_per_chunk says.
    Returns: the scalar that is back-propagated; [3] policy, divergence, imitation, without gradient.
    """
    buffers = (DENSE_BUFFERS if targets.dense is not None else 1) + head.transform.buffers
    chunk_rows = chunk_rows or rows_per_chunk(vocab_size, buffers, hidden.device)
    bias = None if head.bias is None else head.bias.detach()[:vocab_size]
    sliced = replace(head, weight=head.weight.detach()[:vocab_size], bias=bias)
    return _HeadLoss.apply(hidden, head.weight, head.bias, sliced, targets, chunk_rows)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: Head,
        targets: Targets,
        chunk_rows: int,
    ) -> tuple[Tensor, Tensor]:
        dtype, vocab_size = arithmetic_dtype(hidden), len(head.weight)
        wanted = dict(zip(("hidden", "weight", "bias"), ctx.needs_input_grad, strict=False))
        grads = {
            name: torch.zeros_like(x, dtype=dtype)
            for name, x in {"hidden": hidden, "weight": weight, "bias": bias}.items()
            if x is not None and wanted[name]
        }
        terms = torch.zeros(3, dtype=dtype, device=hidden.device)
        buffer = hidden.new_empty(min(chunk_rows, len(hidden)), vocab_size, dtype=dtype)
        for rows, support in _chunks(len(hidden), targets.support_rows, chunk_rows):
            states = hidden[rows]
            logits = own_logits(states, head, out=buffer[: len(states)])
            slope = head.transform.slope(logits)
            shares = merge_(logits, head.end_ids)
            terms += _loss_chunk(logits, targets, rows, support)  # `logits` holds their gradient now
            spread_(logits, head.end_ids, shares)  # and now that of the model's own
            if head.transform != IDENTITY:
                logits.mul_(slope)  # and now that of the logits before the transform
            if "bias" in grads:
                grads["bias"][:vocab_size] += logits.sum(0)
            if "weight" in grads:
                grads["weight"][:vocab_size].addmm_(logits.T, states.to(dtype))
            if "hidden" in grads:
                for block, part in head_blocks(head.weight, dtype):
                    grads["hidden"][rows].addmm_(logits[:, block], part)
        del buffer
        ctx.grads = [
            grads.pop(name).to(x.dtype) if name in grads and x is not None else None
            for name, x in (("weight", weight), ("bias", bias), ("hidden", hidden))
        ]
        ctx.mark_non_differentiable(terms)
        return terms.sum(), terms

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        weight, bias, hidden = ctx.grads
        del ctx.grads  # so that autograd takes the buffers over instead of copying them
        for grad in (weight, bias, hidden):
            if grad is not None and grad_loss != 1:
                grad.mul_(grad_loss)
        return hidden, weight, bias, None, None, None


def _chunks(count: int, support_rows: Tensor, chunk_rows: int) -> Iterator[tuple[slice, slice]]:
    """Slices of the N positions, each with the slice of the R support rows that lie in it."""
    starts = list(range(0, count, chunk_rows))
    bounds = torch.searchsorted(support_rows, torch.tensor([*starts, count], device=support_rows.device)).tolist()
    for i, start in enumerate(starts):
        yield slice(start, min(start + chunk_rows, count)), slice(bounds[i], bounds[i + 1])


def _loss_chunk(logits: Tensor, targets: Targets, rows: slice, support: slice) -> Tensor:
    """The three terms of a chunk, [3]; overwrites `logits` [n, V] with the loss's gradient with respect to them.

    With g the gradient with respect to a row's log-probs at the ids that it reads: g at those ids, minus (Σ g)·π_S
    everywhere.
    """
    tokens = targets.token_ids[rows, None]
    at = (targets.support_rows[support] - rows.start)[:, None]  # [r, 1]
    ids = targets.support_ids[support]
    logits.sub_(logits.amax(-1, keepdim=True))
    picked = logits.gather(-1, tokens)
    wide = logits[at, ids] if targets.dense is None else logits[at[:, 0]]
    total = logits.exp_().sum(-1, keepdim=True)
    lse = total.log()
    with torch.enable_grad():
        logprobs = (picked - lse)[:, 0].requires_grad_()
        student = (wide - lse[at[:, 0]]).requires_grad_()
        divergences = (
            targets.divergence(_teacher_logprobs(targets, support), student) if len(at) else student[:, :0].sum(1)
        )
        terms = compute_loss_terms(
            logprobs,
            targets.policy[rows],
            targets.imitation[rows],
            divergences,
            divergence_weights=targets.divergence_weights[support],
        )
        g_token, g_support = torch.autograd.grad(terms.total(), (logprobs, student), materialize_grads=True)
    slope = g_token[:, None].index_add(0, at[:, 0], g_support.sum(-1, keepdim=True))
    logits.mul_(-slope / total)
    logits.scatter_add_(-1, tokens, g_token[:, None])
    if targets.dense is None:
        logits.index_put_((at, ids), g_support, accumulate=True)
    else:
        logits.index_add_(0, at[:, 0], g_support)
    return torch.stack([terms.policy, terms.divergence, terms.imitation]).detach()


@torch.no_grad()
def _teacher_logprobs(targets: Targets, support: slice) -> Tensor:
    """[r, K], or [r, V] where the support is the whole vocabulary: made where the teacher is, handed over to the
    student's device.
    """
    if targets.dense is None:
        return targets.teacher_logprobs[support]
    teacher = targets.dense
    logits = logits_of(teacher.hidden[support], teacher.head)
    return logits.sub_(logits.logsumexp(-1, keepdim=True)).to(targets.token_ids.device)
