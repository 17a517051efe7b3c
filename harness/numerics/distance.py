"""How far two models are apart at given positions: exact sums over the shared vocabulary, in chunks, without gradient.

Chain rule: the sum over a completion's positions of the KL of the next token, on a completion drawn from a model, has
the KL of the two models' distributions over whole completions for its expectation.

Shape legend: N positions, H hidden width (of each model its own), V shared vocabulary, E end tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from harness.numerics.logprobs import logits_of, rows_per_chunk
from harness.numerics.loss import TeacherRows

BUFFERS = 12  # float32 buffers of the vocabulary's width at a position: float64 log-probs of both, and what is summed


@dataclass(frozen=True)
class Distances:
    """Of every position, all [N] in float64 on the processor; divergences and entropies in nats."""

    reverse: Tensor  # KL(student || teacher)
    forward: Tensor  # KL(teacher || student)
    student_entropy: Tensor
    teacher_entropy: Tensor
    student_stop: Tensor  # probability of any end token
    teacher_stop: Tensor


@torch.no_grad()
def exact_distances(
    student: TeacherRows, teacher: TeacherRows, stop_ids: tuple[int, ...], chunk_rows: int | None = None
) -> Distances:
    """Both models at the same N positions; sums are in float64 whatever the weights' type.

    Args: student, teacher: hidden states [N, H] and heads of V rows each, on any devices; stop_ids: each in [0, V);
        chunk_rows: positions at a time, None: as many as logprobs.CHUNK_BYTES holds.
    """
    if len(student.hidden) != len(teacher.hidden) or len(student.head.weight) != len(teacher.head.weight):
        raise ValueError("student and teacher need the same positions and the same vocabulary")
    size = chunk_rows or rows_per_chunk(len(student.head.weight), BUFFERS)
    pieces = [
        distances_of(*both_logprobs(student, teacher, slice(i, i + size)), stop_ids)
        for i in range(0, len(student.hidden), size)
    ]
    if not pieces:
        return Distances(*[torch.zeros(0, dtype=torch.float64)] * len(fields(Distances)))
    return Distances(*(torch.cat([getattr(piece, f.name) for piece in pieces]) for f in fields(Distances)))


def both_logprobs(student: TeacherRows, teacher: TeacherRows, rows: slice) -> tuple[Tensor, Tensor]:
    """Log-probs of both models at some of the positions, [n, V] each in float64, on the student's device."""
    s = logits_of(student.hidden[rows], student.head).double().log_softmax(-1)
    return s, logits_of(teacher.hidden[rows], teacher.head).to(s.device).double().log_softmax(-1)


def distances_of(student: Tensor, teacher: Tensor, stop_ids: Sequence[int]) -> Distances:
    """Of log-probs [n, V] in float64 of both models."""
    stops = list(stop_ids)
    return Distances(
        reverse=_expected(student, student - teacher).cpu(),
        forward=_expected(teacher, teacher - student).cpu(),
        student_entropy=_expected(student, -student).cpu(),
        teacher_entropy=_expected(teacher, -teacher).cpu(),
        student_stop=student[:, stops].exp().sum(-1).cpu(),
        teacher_stop=teacher[:, stops].exp().sum(-1).cpu(),
    )


def _expected(logprobs: Tensor, values: Tensor) -> Tensor:
    """Σ_v p(v)·value(v), [N]; what has no probability adds nothing, whatever its value."""
    weights = logprobs.exp()
    return torch.where(weights > 0, weights * values, 0.0).sum(-1)
