"""Jensen-Shannon, tail bucket, exact reverse KL: hand-worked values, float64 gradients, bounds and limits."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from harness.divergences import (
    exact_reverse_kl,
    jensen_shannon,
    log_mixture,
    tail_forward_kl,
    teacher_to_mixture_kl,
    topk_forward_kl,
    with_tail,
)

LN2 = math.log(2)
COMPLETE = {  # divergences of two whole distributions
    "jsd": partial(jensen_shannon, beta=0.3),
    "teacher_to_mixture": partial(teacher_to_mixture_kl, beta=0.3),
    "reverse": exact_reverse_kl,
    "forward": topk_forward_kl,
}


def pair(rows: int = 64, v: int = 9, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Teacher log-probs and student logits, float64."""
    generator = torch.Generator().manual_seed(5)
    draw = partial(torch.randn, rows, v, generator=generator, dtype=torch.float64)
    return (scale * draw()).log_softmax(-1), (scale * draw()).requires_grad_()


def test_hand_worked_values() -> None:
    # teacher (0.75, 0.25), student (0.25, 0.75), β = 0.5: M = (0.5, 0.5)
    # KL(T‖M) = 0.75·ln 1.5 + 0.25·ln 0.5 = 0.30410 − 0.17329 = 0.13081; KL(S‖M) is the same by symmetry
    # reverse KL: 0.25·ln(1/3) + 0.75·ln 3 = 0.5·ln 3 = 0.54931
    teacher, student = torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.25, 0.75]]).log()
    assert teacher_to_mixture_kl(teacher, student, 0.5).item() == pytest.approx(0.13081, abs=1e-5)
    assert jensen_shannon(teacher, student, 0.5).item() == pytest.approx(0.13081, abs=1e-5)
    assert exact_reverse_kl(teacher, student).item() == pytest.approx(0.5 * math.log(3), rel=1e-6)


def test_hand_worked_uneven_mixture() -> None:
    # β = 0.25: M = 0.25·(0.8, 0.2) + 0.75·(0.4, 0.6) = (0.5, 0.5)
    # 0.25·(0.8·ln 1.6 + 0.2·ln 0.4) + 0.75·(0.4·ln 0.8 + 0.6·ln 1.2)
    #   = 0.25·(0.37600 − 0.18326) + 0.75·(−0.08926 + 0.10939) = 0.04819 + 0.01510 = 0.06329
    teacher, student = torch.tensor([[0.8, 0.2]]).log(), torch.tensor([[0.4, 0.6]]).log()
    assert jensen_shannon(teacher, student, 0.25).item() == pytest.approx(0.06329, abs=2e-5)


def test_hand_worked_teacher_to_mixture() -> None:
    # the same pair, β = 0.25 on the teacher: KL(T‖M) = 0.8·ln 1.6 + 0.2·ln 0.4 = 0.37600 − 0.18326 = 0.19274
    teacher, student = torch.tensor([[0.8, 0.2]]).log(), torch.tensor([[0.4, 0.6]]).log()
    assert teacher_to_mixture_kl(teacher, student, 0.25).item() == pytest.approx(0.19274, abs=1e-5)


def test_hand_worked_tail() -> None:
    # two ids, masses 0.75 and 0.5, tails 0.25 and 0.5:
    # 0.5·ln(0.5/0.25) + 0.25·ln(0.25/0.25) + 0.25·ln(0.25/0.5) = 0.5·ln 2 + 0 − 0.25·ln 2
    teacher, student = torch.tensor([[0.5, 0.25]]).log(), torch.tensor([[0.25, 0.25]]).log()
    assert with_tail(teacher).exp().tolist() == [pytest.approx([0.5, 0.25, 0.25])]
    assert tail_forward_kl(teacher, student).item() == pytest.approx(0.25 * LN2, rel=1e-5)


@pytest.mark.parametrize("divergence", COMPLETE.values(), ids=COMPLETE.keys())
def test_gradient_in_float64(divergence) -> None:
    teacher, logits = pair(rows=4)
    assert torch.autograd.gradcheck(lambda z: divergence(teacher, z.log_softmax(-1)), (logits,))


@pytest.mark.parametrize("divergence", COMPLETE.values(), ids=COMPLETE.keys())
def test_whole_distributions_are_never_closer_than_equal(divergence) -> None:
    teacher, logits = pair()
    assert (divergence(teacher, logits.log_softmax(-1)) > 0).all()
    zero = torch.zeros(len(teacher), dtype=torch.float64)
    torch.testing.assert_close(divergence(teacher, teacher), zero, rtol=0, atol=1e-14)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_tail_is_a_true_divergence_below_the_full_one(k: int) -> None:
    teacher, logits = pair()
    values, ids = teacher.topk(k, dim=-1)

    def value(z: Tensor) -> Tensor:
        return tail_forward_kl(values, z.log_softmax(-1).gather(-1, ids))

    assert (value(logits) >= 0).all()
    assert (value(logits) <= topk_forward_kl(teacher, logits.log_softmax(-1)) + 1e-12).all()  # merging atoms loses
    torch.testing.assert_close(value(teacher), torch.zeros(64, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(value, (logits,))


def test_without_the_tail_the_minimiser_cuts_the_tail_away() -> None:
    """At π_S = π_T/m on the ids and almost 0 off them the truncated sum is m·log m < 0; with the atom it is large."""
    teacher = torch.tensor([[0.6, 0.2]]).log()  # m = 0.8
    cut = torch.tensor([[0.75, 0.25 - 1e-6]]).log()
    # 0.8·ln 0.8 = −0.17851; with the atom plus 0.2·ln(0.2/1e-6) = 2.44121
    assert topk_forward_kl(teacher, cut).item() == pytest.approx(0.8 * math.log(0.8), abs=1e-5)
    assert tail_forward_kl(teacher, cut).item() == pytest.approx(-0.17851 + 2.44121, abs=0.01)


def test_tail_gradient_is_student_minus_teacher_within_the_support() -> None:
    """∂L/∂z_j = π_S(j) − π_T(j) on the ids; off them π_S(j)·(1 − (1−m_T)/(1−m_S)): the tail as a whole, not its
    members.
    """
    teacher, logits = pair(rows=5)
    values, ids = teacher.topk(3, dim=-1)
    tail_forward_kl(values, logits.log_softmax(-1).gather(-1, ids)).sum().backward()
    student = logits.detach().softmax(-1)
    inside = torch.zeros_like(teacher, dtype=torch.bool).scatter(-1, ids, True)
    mass_t = (teacher.exp() * inside).sum(-1, keepdim=True)
    mass_s = (student * inside).sum(-1, keepdim=True)
    expected = torch.where(inside, student - teacher.exp(), student * (1 - (1 - mass_t) / (1 - mass_s)))
    torch.testing.assert_close(logits.grad, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tail_of_a_complete_support_is_harmless(dtype: torch.dtype) -> None:
    """K = V, and a student that is certain: no infinity, no NaN, in value or gradient."""
    teacher = torch.tensor([[0.0, -40.0, -40.0], [1.0, 0.0, -1.0]], dtype=dtype).log_softmax(-1)
    logits = torch.tensor([[60.0, -60.0, 0.0], [0.0, 1.0, 2.0]], dtype=dtype, requires_grad=True)
    value = tail_forward_kl(teacher, logits.log_softmax(-1))
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(logits.grad).all()
    expected = topk_forward_kl(teacher, logits.log_softmax(-1)).detach()
    torch.testing.assert_close(value.detach(), expected, rtol=1e-5, atol=2e-5 if dtype == torch.float32 else 1e-12)


def test_tail_is_accurate_in_float32_against_float64() -> None:
    logprobs = torch.linspace(-1e-4, -20, 2001, dtype=torch.float64)[:, None]
    truth = with_tail(logprobs)[:, 1]
    single = with_tail(logprobs.float())[:, 1].double()
    assert ((single - truth).abs() <= 1e-3 + 1e-6 * truth.abs()).all()  # 1e-4 of mass has 3 digits left in float32


@pytest.mark.parametrize("inside", [-1e-6, -1e-3, -0.5, -1.0, -5.0, -15.0])
def test_the_tail_of_one_id_has_all_digits_of_float32(inside: float) -> None:
    """log(1 − e^x), its argument exact in float32: neither 1 − e^x near x = 0 nor 1 − e^x near 1 may cancel."""
    single = torch.tensor([[inside]])
    truth = math.log(-math.expm1(single.item()))
    assert with_tail(single)[0, 1].item() == pytest.approx(truth, rel=1e-6)


def test_jsd_is_bounded_and_symmetric_at_a_half() -> None:
    teacher, logits = pair(scale=30.0)
    student = logits.detach().log_softmax(-1)
    forth, back = jensen_shannon(teacher, student, 0.5), jensen_shannon(student, teacher, 0.5)
    torch.testing.assert_close(forth, back, rtol=1e-12, atol=1e-12)
    assert (forth <= LN2 + 1e-12).all()
    assert forth.max() > 0.6  # the bound is nearly met by nearly disjoint distributions


def test_jsd_tends_to_the_two_kls() -> None:
    teacher, logits = pair(scale=1.0)
    student = logits.detach().log_softmax(-1)
    forward, reverse = topk_forward_kl(teacher, student), exact_reverse_kl(teacher, student)
    torch.testing.assert_close(jensen_shannon(teacher, student, 1e-6) / 1e-6, forward, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(jensen_shannon(teacher, student, 1 - 1e-6) / 1e-6, reverse, rtol=1e-3, atol=1e-3)


def test_stated_gradients() -> None:
    """∂/∂z_j: reverse KL π_S(j)·(log(π_S/π_T)(j) − KL); JSD (1−β)·π_S(j)·(log(π_S/M)(j) − KL(π_S‖M))."""
    teacher, logits = pair(rows=6)
    student, p = logits.detach().log_softmax(-1), logits.detach().softmax(-1)
    beta = 0.3
    targets = {exact_reverse_kl: (1.0, teacher), COMPLETE["jsd"]: (1 - beta, log_mixture(teacher, student, beta))}
    for divergence, (factor, reference) in targets.items():
        (gradient,) = torch.autograd.grad(divergence(teacher, logits.log_softmax(-1)).sum(), logits)
        ratio = student - reference
        expected = factor * p * (ratio - (p * ratio).sum(-1, keepdim=True))
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_missing_renormalisation_only_rescales() -> None:
    """With π̂_T = π_T/m on the top k the gradient is exactly 1/m times the unrenormalised one."""
    teacher, logits = pair(rows=6)
    values, ids = teacher.topk(3, dim=-1)
    mass = values.exp().sum(-1, keepdim=True)

    def gradient(target: Tensor) -> Tensor:
        value = topk_forward_kl(target, logits.log_softmax(-1).gather(-1, ids)).sum()
        return torch.autograd.grad(value, logits)[0]

    torch.testing.assert_close(gradient(values - mass.log()), gradient(values) / mass, rtol=1e-9, atol=1e-12)


def test_direct_forward_kl_has_a_bounded_gradient_and_an_unbounded_value() -> None:
    """The student's mass on the teacher's top k goes to 0: the value grows without bound, the gradient's norm stays
    below 2.
    """
    teacher = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).log()
    for gap, least in ((10.0, 8.0), (100.0, 80.0), (1000.0, 800.0)):
        logits = torch.tensor([[-gap, -gap, 0.0]], dtype=torch.float64, requires_grad=True)
        value = topk_forward_kl(teacher[:, :2], logits.log_softmax(-1)[:, :2])
        value.sum().backward()
        assert value.item() > least
        assert logits.grad.norm() < 2


def test_log_mixture_is_safe_far_out() -> None:
    far = torch.tensor([-1e4, 0.0, -2.0]), torch.tensor([0.0, -1e4, -2.0])
    # log(0.25·0 + 0.75·1), log(0.25·1 + 0.75·0), and equal log-probs stay what they are
    assert log_mixture(*far, 0.25).tolist() == pytest.approx([math.log(0.75), math.log(0.25), -2.0])


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.1])
def test_degenerate_mixtures_are_refused(beta: float) -> None:
    with pytest.raises(ValueError, match="strictly between"):
        jensen_shannon(torch.zeros(1, 2), torch.zeros(1, 2), beta)


def test_the_teacher_gets_no_gradient() -> None:
    teacher = torch.randn(2, 5).log_softmax(-1).requires_grad_()
    for divergence in (*COMPLETE.values(), tail_forward_kl):
        assert not divergence(teacher, torch.randn(2, 5).log_softmax(-1)).requires_grad


@pytest.mark.parametrize("divergence", [*COMPLETE.values(), tail_forward_kl])
def test_shapes_are_checked(divergence) -> None:
    with pytest.raises(ValueError, match=r"two \[N, K\] tensors, got \(2, 3\) and \(2, 4\)$"):
        divergence(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"two \[N, K\] tensors, got \(3,\) and \(3,\)$"):
        divergence(torch.zeros(3), torch.zeros(3))
