"""EOPD where the teacher's entropy is known between bounds only (the teacher is behind an engine
that gives its top k).
"""

import torch

from baselines.eopd import EOPD
from harness.types import TokenBatch, TokenSignal


def test_the_gate_takes_the_lower_bound_and_says_how_often_it_may_be_wrong() -> None:
    """τ = 0.8. Bounds: (0.9, 1.0) open; (0.7, 0.9) shut and unsure; (0.1, 0.2) shut; (0.5, 2.0) unsure, but in a
    prefix.
    """
    own = torch.tensor([[False, True, True, True]])
    batch = TokenBatch(torch.zeros(1, 4, dtype=torch.long), own, ~own, torch.zeros(1, 4), torch.zeros(1, 4))
    teacher = TokenSignal(
        torch.zeros(1, 4),
        entropy=torch.tensor([[0.5, 0.9, 0.7, 0.1]]),
        entropy_upper=torch.tensor([[2.0, 1.0, 0.9, 0.2]]),
    )
    credit = EOPD().credit(batch, teacher, TokenSignal(torch.zeros(1, 4)), 0.0)
    assert credit.divergence_weights.tolist() == [[0.0, 1.0, 0.0, 0.0]]
    assert abs(credit.metrics["gated_frac"] - 1 / 3) < 1e-6
    assert abs(credit.metrics["gate_unsure_frac"] - 1 / 3) < 1e-6
