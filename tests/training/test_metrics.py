"""Quantiles of a step's rewards."""

from __future__ import annotations

import pytest
import torch

from harness.training.metrics import quantiles_of

SHARES = (0.001, 0.01, 0.5, 0.99)


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_they_are_those_of_torch(count: int, dtype: torch.dtype) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(count), dtype=dtype)
    expected = torch.quantile(values, torch.tensor(SHARES, dtype=dtype))
    assert quantiles_of(values, SHARES) == pytest.approx(expected.tolist(), rel=1e-5)


def test_by_hand() -> None:
    """Of 0, 10, 20, 30: the median lies between 10 and 20, a tenth at place 0.3."""
    assert quantiles_of(torch.tensor([30.0, 0.0, 20.0, 10.0]), (0.0, 0.1, 0.5, 1.0)) == pytest.approx([0, 3, 15, 30])


def test_of_more_tokens_than_torch_takes() -> None:
    """A step of 2,048 completions of 8,192 tokens has 2^24."""
    count = 2**24 + 2
    values = torch.arange(count, dtype=torch.float64) / (count - 1)
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(values, 0.5)
    assert quantiles_of(values, SHARES) == pytest.approx(SHARES, rel=1e-12)
