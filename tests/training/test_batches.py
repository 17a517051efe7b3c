"""The padded step, and what the metrics are told of its ends, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from harness.numerics.padding import padded
from harness.training.batches import endings_of, token_batch
from harness.training.metrics import stop_metrics
from harness.types import Rollout, TokenSignal

NAN = math.nan
# the second one has a prefix of one token, and was cut at its length
ROLLOUTS = [
    Rollout((9,), (5, 6, 1), 0, (-1.0, -2.0, -3.0), 0, "stop", "a", 0, stop_logprobs=(-3.0, -2.0, -1.0)),
    Rollout((9,), (7, 8), 1, (0.0, -4.0), 0, "length", "b", 0, stop_logprobs=(-5.0,)),
]


class Counting:
    """Uniforms 0.1, 0.2, …"""

    def random(self, count: int) -> list[float]:
        return [(i + 1) / 10 for i in range(count)]


def test_rows_are_padded_on_the_right() -> None:
    assert padded([(5, 6, 1), (), (7,)]).tolist() == [[5, 6, 1], [0, 0, 0], [7, 0, 0]]
    assert padded([(5,)]).dtype == torch.long
    tenth = padded([(0.1,), (0.1, 2**60)], torch.float32)
    assert torch.equal(tenth, torch.tensor([[0.1, 0.0], [0.1, 2**60]]))  # rounded as torch rounds
    assert padded([(0.1,)], torch.float64).item() == 0.1


def test_a_step_of_two_completions() -> None:
    batch = token_batch(ROLLOUTS, [Counting()] * 2)  # type: ignore[list-item]
    assert batch.labels.tolist() == [[5, 6, 1], [7, 8, 0]]
    assert batch.on_policy_mask.tolist() == [[True, True, True], [False, True, False]]
    assert batch.prefix_mask.tolist() == [[False, False, False], [True, False, False]]
    assert batch.rollout_logprobs.tolist() == [[-1, -2, -3], [0, -4, 0]]
    assert torch.equal(batch.uniforms, torch.tensor([[0.1, 0.2, 0.3], [0.1, 0.2, 0.0]]))


def test_ends_are_told_apart() -> None:
    endings = endings_of(ROLLOUTS)
    assert endings.stopped.tolist() == [[False, False, True], [False, False, False]]
    torch.testing.assert_close(endings.stop_logprobs, torch.tensor([[-3, -2, -1], [NAN, -5.0, 0]]), equal_nan=True)
    batch = token_batch(ROLLOUTS, [Counting()] * 2)  # type: ignore[list-item]
    teacher = TokenSignal(batch.rollout_logprobs, stop_logprobs=torch.full((2, 3), -1.0))
    found = stop_metrics(batch, endings, teacher)
    assert found["stop/student_at_end"] == pytest.approx(math.exp(-1))
    assert found["stop/student_elsewhere"] == pytest.approx((math.exp(-3) + math.exp(-2) + math.exp(-5)) / 3)
    assert [found[f"stop/teacher_{where}"] for where in ("at_end", "elsewhere")] == pytest.approx([math.exp(-1)] * 2)


def test_an_engine_that_does_not_tell_is_left_out() -> None:
    silent = [Rollout(r.prompt_ids, r.completion_ids, r.prefix_len, r.logprobs, 0, "stop", "a", 0) for r in ROLLOUTS]
    batch = token_batch(silent, [Counting()] * 2)  # type: ignore[list-item]
    assert stop_metrics(batch, endings_of(silent), None) == {}
