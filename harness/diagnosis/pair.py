"""What a pair looks like on the student's own completions: the numbers behind the tables.

Shape legend: B completions, T completion positions, N tokens of all completions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.diagnosis.positions import Compared
from harness.divergences import HARD_OUTLIER
from harness.types import Rollout

BUCKETS = (1, 4, 16, 64, 256, 1024, 4096)  # last positions of the rows of the table by position; a last one is open


def describe_pair(found: Compared, positions: Tensor, rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """All numbers of a pair, by name.

    Args: found: of N tokens, completion by completion; positions [N]: of each in its completion, from 1.
    """
    return {
        **overall(found),
        **_by_completion(found, rollouts),
        "by_position": [{"positions": name, **overall(found.where(mask))} for name, mask in _buckets(positions)],
        "stops": _stops(found, rollouts),
    }


def overall(found: Compared) -> dict[str, float]:
    """Means over tokens, nats where nothing else is said."""
    reward = found.teacher - found.student
    k1 = -reward
    return {
        "tokens": float(len(reward)),
        "acceptance": float(1 - found.total_variation.mean()),  # of a draw by min(π_T / π_S, 1), exact
        "total_variation": float(found.total_variation.mean()),
        "hard_outliers": float((reward < HARD_OUTLIER).double().mean()),  # share of tokens
        "reverse_kl": float(found.reverse.mean()),
        "forward_kl": float(found.forward.mean()),  # on the student's tokens
        "k1": float(k1.mean()),  # the sampled estimate of the reverse KL
        "k1_deviation": float((k1 - found.reverse).square().mean().sqrt()),  # of one token from the exact value
        "student_entropy": float(found.student_entropy.mean()),
        "teacher_entropy": float(found.teacher_entropy.mean()),
        "teacher_topk_mass": float(found.teacher_topk_mass.mean()),
        "student_topk_mass": float(found.student_topk_mass.mean()),
    }


def _by_completion(found: Compared, rollouts: Sequence[Rollout]) -> dict[str, Any]:
    lengths = [len(rollout.completion_ids) for rollout in rollouts]
    outliers = [part < HARD_OUTLIER for part in (found.teacher - found.student).split(lengths)]
    first = [int(part.nonzero()[0]) + 1 for part in outliers if part.any()]
    return {
        "completions": len(rollouts),
        "mean_length": sum(lengths) / len(lengths),
        "truncated": sum(rollout.stop_reason == "length" for rollout in rollouts) / len(rollouts),
        "with_hard_outlier": len(first) / len(rollouts),  # share of completions
        "first_hard_outlier": float(torch.tensor(first).double().median()) if first else None,  # position, median
    }


def _buckets(positions: Tensor) -> Iterator[tuple[str, Tensor]]:
    first = 1
    for last in (*BUCKETS, 2**31):
        mask = (positions >= first) & (positions <= last)
        if mask.any():
            yield (str(first) if first == last else f"{first}–{min(last, int(positions.max()))}"), mask
        first = last + 1


def _stops(found: Compared, rollouts: Sequence[Rollout]) -> dict[str, float | None]:
    """Mean probability of any end token: where the student stopped, and at all other tokens."""
    ended = torch.zeros(len(found.student), dtype=torch.bool)
    last = -1
    for rollout in rollouts:
        last += len(rollout.completion_ids)
        ended[last] = rollout.stop_reason == "stop"
    return {
        f"{who}_{place}": float(getattr(found, f"{who}_stop")[mask].mean()) if mask.any() else None
        for who in ("student", "teacher")
        for place, mask in {"at_end": ended, "elsewhere": ~ended}.items()
    }
