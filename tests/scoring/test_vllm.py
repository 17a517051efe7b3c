"""Bounds of an entropy of which only the most probable tokens are known."""

import math

import pytest
import torch

from harness.scoring.vllm import entropy_bounds


def test_hand_worked() -> None:
    """p = (1/2, 1/4, 1/8, 1/8), two known: the rest, 1/4, is one token, or two of 1/8 each, which here is the truth."""
    known = torch.tensor([0.5, 0.25]).log()
    lower, upper = entropy_bounds(known, 4)
    assert lower.item() == pytest.approx(1.5 * math.log(2))  # H(1/2, 1/4, 1/4)
    assert upper.item() == pytest.approx(1.75 * math.log(2))  # H(1/2, 1/4, 1/8, 1/8)


def test_random_distributions_lie_between() -> None:
    logprobs = (3 * torch.randn(200, 50, generator=torch.Generator().manual_seed(0))).log_softmax(-1)
    exact = -(logprobs.exp() * logprobs).sum(-1)
    for k in (1, 8, 49):
        lower, upper = entropy_bounds(logprobs.topk(k).values, 50)
        assert (lower <= exact + 1e-5).all() and (exact <= upper + 1e-5).all()
    lower, upper = entropy_bounds(logprobs, 50)
    torch.testing.assert_close(lower, exact)
    assert torch.equal(lower, upper)


def test_a_tail_without_mass() -> None:
    lower, upper = entropy_bounds(torch.tensor([0.0, -math.inf]), 10)
    assert lower.item() == 0 == upper.item()
