"""Products of narrow matrices as a GPU makes them, played on a CPU (fixture narrow_products)."""

from __future__ import annotations

import pytest
import torch

from harness.numerics import logprobs as module


class NarrowProducts:
    """torch.mm with `out_dtype`, which a GPU has and a CPU has not: exact products, summed in float64, then float32."""

    def __init__(self) -> None:
        self.calls = 0
        self._mm = torch.mm

    def __call__(self, a: torch.Tensor, b: torch.Tensor, *, out_dtype=None, out=None) -> torch.Tensor:
        if out_dtype is None:
            return self._mm(a, b, out=out)
        assert a.dtype == b.dtype == torch.bfloat16 and out_dtype == torch.float32
        self.calls += 1
        found = (a.double() @ b.double()).float()
        return found if out is None else out.copy_(found)


@pytest.fixture
def narrow_products(monkeypatch: pytest.MonkeyPatch) -> NarrowProducts:
    made = NarrowProducts()
    monkeypatch.setattr(module, "has_wide_products", lambda kind, dtype: True)
    monkeypatch.setattr(torch, "mm", made)
    return made
