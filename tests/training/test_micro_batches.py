"""Micro-batches of sequences of similar lengths: by hand, and never larger than in the order of the step."""

from __future__ import annotations

import random

import pytest
import torch

from harness.divergences import topk_forward_kl
from harness.numerics.credit import Coefficients
from harness.numerics.logprobs import Head
from harness.numerics.loss import TeacherRows
from harness.training.batches import token_batch
from harness.training.step import Step, Support, micro_batches, order_by_length
from harness.types import Rollout

LENGTHS = ((1, 2), (1, 5), (3, 1), (2, 4))  # tokens of prompt and completion; together 3, 6, 4, 6


def step_of(dense: bool = False) -> Step:
    """Every number names its place: a token 100·sequence + position, a coefficient likewise, a support row too."""
    rollouts = [
        Rollout(
            prompt_ids=tuple(range(900, 900 + prompt)),
            completion_ids=tuple(100 * i + t for t in range(completion)),
            prefix_len=0,
            logprobs=(0.0,) * completion,
            policy_version=0,
            stop_reason="length",
            prompt_id=str(i),
            sample_index=0,
        )
        for i, (prompt, completion) in enumerate(LENGTHS)
    ]
    batch = token_batch(rollouts, [_NoDraws()] * len(rollouts))  # type: ignore[list-item]
    places = batch.labels.double() + 1000 * batch.on_policy_mask
    has_support = batch.on_policy_mask & (batch.labels % 2 == 1)  # the odd positions: 1, 2, 0 and 2 of them
    names = batch.labels[has_support][:, None]
    teacher = TeacherRows(names.double(), Head(torch.zeros(2, 1).double())) if dense else None
    zeros = torch.zeros_like(places)
    return Step(
        rollouts,
        batch,
        Coefficients(places, torch.where(has_support, places, zeros), zeros),
        divergence=topk_forward_kl,
        support=Support(names, names.double(), teacher),
    )


class _NoDraws:
    def random(self, count: int) -> torch.Tensor:
        return torch.zeros(count)


def test_sequences_of_similar_lengths_come_together_the_longest_first() -> None:
    # 6 and 6 (sequences 1 and 3), then 4 and 3 (2 and 0), which stand in the order of the step again
    assert order_by_length([3, 6, 4, 6], [2, 2]) == [1, 3, 0, 2]
    assert order_by_length([3, 6, 4, 6], [4]) == [0, 1, 2, 3]
    assert order_by_length([3, 6, 4, 6], [1, 1, 1, 1]) == [1, 3, 2, 0]
    assert order_by_length([5, 5, 5, 5], [2, 2]) == [0, 1, 2, 3]


@pytest.mark.parametrize("dense", [False, True])
def test_a_micro_batch_by_hand(dense: bool) -> None:
    first, second = micro_batches(step_of(dense), [2, 2])
    assert first["input_ids"].tolist() == [[900, 100, 101, 102, 103, 104], [900, 901, 300, 301, 302, 303]]
    assert second["input_ids"].tolist() == [[900, 0, 1, 0], [900, 901, 902, 200]]
    # the state before each completion token: positions 0 to 4 of the first row, 1 to 4 of the second (of width 6)
    assert first["rows"].tolist() == [0, 1, 2, 3, 4, 7, 8, 9, 10]
    assert second["rows"].tolist() == [0, 1, 6]
    assert first["token_ids"].tolist() == [100, 101, 102, 103, 104, 300, 301, 302, 303]
    assert first["policy"].tolist() == [1100, 1101, 1102, 1103, 1104, 1300, 1301, 1302, 1303]
    assert first["support_rows"].tolist() == [1, 3, 6, 8] and second["support_rows"].tolist() == [1]
    assert first["support_ids"].tolist() == [[101], [103], [301], [303]] and second["support_ids"].tolist() == [[1]]
    assert first["teacher_logprobs"].tolist() == [[101], [103], [301], [303]]
    if dense:
        assert first["dense"].hidden.tolist() == [[101], [103], [301], [303]]
        assert second["dense"].hidden.tolist() == [[1]]


def test_one_micro_batch_is_the_step_in_its_own_order() -> None:
    """What is published was trained with one micro-batch a step: not a float sum of it is in another order."""
    (whole,) = micro_batches(step_of(), [4])
    assert whole["input_ids"][:, 0].tolist() == [900] * 4
    assert whole["token_ids"].tolist() == [0, 1, 100, 101, 102, 103, 104, 200, 300, 301, 302, 303]
    assert whole["support_ids"][:, 0].tolist() == [1, 101, 103, 301, 303]


def test_no_micro_batch_is_larger_than_in_the_order_of_the_step() -> None:
    draw = random.Random(0)
    for _ in range(200):
        count, size = draw.randint(1, 8), draw.randint(1, 6)
        lengths = [draw.randint(1, 50) for _ in range(count * size)]
        order = order_by_length(lengths, [size] * count)
        assert sorted(order) == list(range(count * size))
        widths, before = (
            [max(lengths[i] for i in sequence[first : first + size]) for first in range(0, count * size, size)]
            for sequence in (order, list(range(count * size)))
        )
        assert widths == sorted(widths, reverse=True)
        assert max(widths) == max(before) and sum(widths) <= sum(before)
