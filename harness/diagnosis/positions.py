"""How far two models are apart on given tokens, over the whole vocabulary, which exists for some positions at a time.

Shape legend: N token positions, V vocabulary. Everything in nats, in float64 and without
gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from harness.numerics.distance import BUFFERS, both_logprobs, distances_of
from harness.numerics.logprobs import rows_per_chunk
from harness.numerics.loss import TeacherRows


@dataclass(frozen=True)
class Compared:
    """Of the student's and the teacher's distribution at N positions, each [N]."""

    student: Tensor  # log π_S of the token that was written
    teacher: Tensor  # log π_T of it
    student_entropy: Tensor
    teacher_entropy: Tensor
    reverse: Tensor  # KL(π_S ‖ π_T)
    forward: Tensor  # KL(π_T ‖ π_S)
    total_variation: Tensor  # ½ Σ_v |π_S − π_T|: what a draw by min(π_T / π_S, 1) rejects on average
    teacher_topk_mass: Tensor  # π_T of the teacher's own top k
    student_topk_mass: Tensor  # π_S of the teacher's top k
    student_stop: Tensor  # π_S of any end token
    teacher_stop: Tensor  # π_T of any end token

    def where(self, mask: Tensor) -> Compared:
        """Of some of the positions, mask [N]."""
        return Compared(*(getattr(self, f.name)[mask] for f in fields(self)))


def joined(pieces: Sequence[Compared]) -> Compared:
    """One after the other."""
    return Compared(*(torch.cat([getattr(piece, f.name) for piece in pieces]) for f in fields(Compared)))


@torch.no_grad()
def distances(
    student: TeacherRows, teacher: TeacherRows, token_ids: Tensor, top_k: int, stop_ids: Sequence[int]
) -> Compared:
    """Compares two models at the same N positions.

    Args: student, teacher: their states at the positions, and heads of one vocabulary; token_ids [N], what was written
        there; top_k of the teacher; stop_ids, the end tokens.
    """
    size = rows_per_chunk(len(student.head.weight), BUFFERS)
    pieces = []
    for start in range(0, len(token_ids), size):
        rows = slice(start, start + size)
        views = both_logprobs(student, teacher, rows)
        pieces.append(_compare(*views, token_ids[rows], top_k, stop_ids=stop_ids))
    return joined(pieces)


def _compare(student: Tensor, teacher: Tensor, token_ids: Tensor, top_k: int, stop_ids: Sequence[int]) -> Compared:
    """Of log-probs [n, V] in float64 of both models."""
    top = teacher.topk(min(top_k, teacher.shape[-1]), dim=-1)
    apart = distances_of(student, teacher, stop_ids)
    return Compared(
        student=student.gather(-1, token_ids[:, None])[:, 0].cpu(),
        teacher=teacher.gather(-1, token_ids[:, None])[:, 0].cpu(),
        student_entropy=apart.student_entropy,
        teacher_entropy=apart.teacher_entropy,
        reverse=apart.reverse,
        forward=apart.forward,
        total_variation=0.5 * (student.exp() - teacher.exp()).abs().sum(-1).cpu(),
        teacher_topk_mass=top.values.exp().sum(-1).cpu(),
        student_topk_mass=student.gather(-1, top.indices).exp().sum(-1).cpu(),
        student_stop=apart.student_stop,
        teacher_stop=apart.teacher_stop,
    )
