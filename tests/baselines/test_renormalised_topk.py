"""Is the teacher renormalised on its top k? An open reading of TrOPD's outlier term, and what it changes.

Teacher and student are p and q over the vocabulary, S the teacher's top k = 64, m = Σ_S p and s = Σ_S q the masses
there, z the student's logits. Three readings of the forward KL, each with q under the full softmax unless it says
otherwise:

    printed          L = Σ_S p·log(p/q)                     this is `topk_forward_kl`
    renormalised     R = Σ_S (p/m)·log((p/m)/q)             the teacher on S
    both             B = Σ_S (p/m)·log((p/m)/(q/s))         the student on S too

    R = L/m − log m              0 ≤ R − L ≤ (1 − m)·(R + 1)        ∇R = ∇L/m, Σ_j |∇R − ∇L|_j ≤ 2(1 − m)
    B = R + log s                ∇B = 0 on every token outside S     Σ_j |∇R − ∇B|_j = 2(1 − s)

So the first two differ in a factor of the gradient, and by no more than the teacher's tail; the third pushes no token
of the tail down, and differs by the *student's* tail, which is large where the student is on another course.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from harness.divergences import topk_forward_kl

VOCABULARY, K, POSITIONS = 500, 64, 40


def renormalised(teacher: Tensor, student: Tensor) -> Tensor:
    """R, [N]: the teacher's log-probs at the K ids made to sum to one."""
    return topk_forward_kl(teacher.log_softmax(-1), student)


def both_renormalised(teacher: Tensor, student: Tensor) -> Tensor:
    """B, [N]: the student's too."""
    return topk_forward_kl(teacher.log_softmax(-1), student.log_softmax(-1))


class Case:
    """Random teacher and student of one sharpness, float64; sharper ones have less mass in the tail."""

    def __init__(self, sharpness: float, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        logits = sharpness * torch.randn(2, POSITIONS, VOCABULARY, generator=generator, dtype=torch.float64)
        self.teacher, self.ids = logits[0].log_softmax(-1).topk(K)
        self.student_logits = logits[1]
        self.m = self.teacher.exp().sum(-1)  # [N]
        self.s = self.student_logits.softmax(-1).gather(1, self.ids).sum(-1)  # [N]

    def of(self, reading: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Value [N] and gradient [N, V] with respect to the student's logits, by autograd."""
        z = self.student_logits.clone().requires_grad_()
        value = reading(self.teacher, z.log_softmax(-1).gather(1, self.ids))
        (gradient,) = torch.autograd.grad(value.sum(), z)
        return value.detach(), gradient


@pytest.fixture(params=[(0.5, 0), (2.0, 1), (6.0, 2)], ids=["flat", "middling", "sharp"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(*request.param)


def test_the_cases_have_tails_of_all_sizes() -> None:
    """Median teacher mass outside of the top 64: most of it, a tenth to a half, under a thousandth."""
    tails = [(1 - Case(*parameters).m).median().item() for parameters in [(0.5, 0), (2.0, 1), (6.0, 2)]]
    assert tails[0] > 0.5 > tails[1] > 0.1 > 1e-3 > tails[2] > 0


def test_value_by_hand() -> None:
    """p = (1/2, 1/4 | 1/4), q = (1/4, 1/4 | 1/2), S the first two: m = 3/4, L = (1/2)·log 2, R = (4/3)·L − log(3/4)."""
    teacher, student = torch.tensor([[0.5, 0.25]]).double().log(), torch.tensor([[0.25, 0.25]]).double().log()
    half_log_two = 0.34657359027997264
    assert topk_forward_kl(teacher, student).item() == pytest.approx(half_log_two)
    assert renormalised(teacher, student).item() == pytest.approx(4 / 3 * half_log_two + 0.2876820724517809)


def test_values_differ_by_the_teachers_tail(case: Case) -> None:
    (printed, _), (renormed, _) = case.of(topk_forward_kl), case.of(renormalised)
    torch.testing.assert_close(renormed, printed / case.m - case.m.log(), rtol=1e-12, atol=1e-12)
    difference = renormed - printed
    assert (difference >= 0).all() and (difference <= (1 - case.m) * (renormed + 1) + 1e-12).all()
    assert (renormed >= 0).all()  # a KL to a distribution of mass s <= 1; the printed one may be negative


def test_gradients_differ_by_a_factor_alone(case: Case) -> None:
    (_, printed), (_, renormed) = case.of(topk_forward_kl), case.of(renormalised)
    torch.testing.assert_close(renormed, printed / case.m[:, None], rtol=1e-10, atol=1e-14)
    difference = (renormed - printed).abs().sum(-1)
    assert (difference <= 2 * (1 - case.m)).all()


def test_the_bound_is_reached() -> None:
    """A student with no mass on S: ∇L = m on its own token and −p on S, 2m in sum, and (1/m − 1)·2m = 2(1 − m)."""
    case = Case(2.0, 3)
    outside = torch.ones(POSITIONS, VOCABULARY).scatter(1, case.ids, 0).argmax(-1, keepdim=True)
    case.student_logits = torch.full((POSITIONS, VOCABULARY), -60.0, dtype=torch.float64).scatter(1, outside, 0.0)
    difference = (case.of(renormalised)[1] - case.of(topk_forward_kl)[1]).abs().sum(-1)
    torch.testing.assert_close(difference, 2 * (1 - case.m), rtol=1e-9, atol=1e-12)


def test_renormalising_both_leaves_the_students_tail_alone(case: Case) -> None:
    (value, gradient), (renormed_value, renormed) = case.of(both_renormalised), case.of(renormalised)
    torch.testing.assert_close(value, renormed_value + case.s.log(), rtol=1e-10, atol=1e-12)
    tail = torch.ones_like(gradient).scatter(1, case.ids, 0)
    assert (gradient * tail).abs().max() < 1e-15 < (renormed * tail).abs().max()
    torch.testing.assert_close((renormed - gradient).abs().sum(-1), 2 * (1 - case.s), rtol=1e-9, atol=1e-12)
