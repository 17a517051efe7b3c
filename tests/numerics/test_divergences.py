"""Divergences against hand-worked values, float64 gradients and their stated gradient."""

import math

import pytest
import torch

from harness.divergences import topk_forward_kl


def test_hand_worked_value() -> None:
    # teacher 0.5, 0.25 on the two ids; student 0.25, 0.5:
    # 0.5·ln(0.5/0.25) + 0.25·ln(0.25/0.5) = 0.5·ln 2 − 0.25·ln 2 = 0.25·ln 2 = 0.17329
    teacher = torch.tensor([[0.5, 0.25]]).log()
    student = torch.tensor([[0.25, 0.5]]).log()
    assert topk_forward_kl(teacher, student).item() == pytest.approx(0.25 * math.log(2), rel=1e-6)


def test_truncated_value_may_be_negative() -> None:
    # the student has more mass on the ids than the teacher: 0.5·ln(0.5/0.9) = −0.29389
    value = topk_forward_kl(torch.tensor([[0.5]]).log(), torch.tensor([[0.9]]).log())
    assert value.item() == pytest.approx(0.5 * math.log(0.5 / 0.9), rel=1e-6)
    assert value.item() < 0


def test_gradient_in_float64() -> None:
    teacher = torch.randn(4, 9, dtype=torch.float64).log_softmax(-1)
    logits = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    ids = teacher.topk(3, dim=-1).indices

    def value(z: torch.Tensor) -> torch.Tensor:
        return topk_forward_kl(teacher.gather(-1, ids), z.log_softmax(-1).gather(-1, ids))

    assert torch.autograd.gradcheck(value, (logits,))


def test_gradient_is_mass_times_student_minus_teacher() -> None:
    """∂L/∂z_j = m·π_S(j) − π_T(j)·1[j in the top k], m the teacher's mass there."""
    torch.manual_seed(0)
    teacher = torch.randn(3, 11, dtype=torch.float64).log_softmax(-1)
    logits = torch.randn(3, 11, dtype=torch.float64, requires_grad=True)
    values, ids = teacher.topk(4, dim=-1)
    topk_forward_kl(values, logits.log_softmax(-1).gather(-1, ids)).sum().backward()
    on_support = torch.zeros_like(teacher).scatter(-1, ids, values.exp())
    expected = on_support.sum(-1, keepdim=True) * logits.softmax(-1) - on_support
    torch.testing.assert_close(logits.grad, expected.detach(), rtol=1e-12, atol=1e-12)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"\[N, K\]"):
        topk_forward_kl(torch.zeros(2, 3), torch.zeros(2, 4))
