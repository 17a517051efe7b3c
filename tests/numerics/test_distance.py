"""Exact distances against plain logits in float64 and against literals."""

from __future__ import annotations

import math

import pytest
import torch

from harness.numerics.distance import exact_distances
from harness.numerics.logprobs import Head, LogitsTransform
from harness.numerics.loss import TeacherRows

V = 11


def rows(seed: int, width: int, end_ids: tuple[int, ...] = (), count: int = 7) -> TeacherRows:
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randn(n, width, generator=generator) for n in (count, V))
    bias = torch.randn(V, generator=generator)
    return TeacherRows(hidden, Head(weight, bias, LogitsTransform(scale=0.7, cap=5.0), end_ids))


def plain(given: TeacherRows) -> torch.Tensor:
    """Log-probs [N, V] in float64, written out: softmax of 5·tanh(0.7·(W h + b) / 5)."""
    head = given.head
    assert head.bias is not None
    logits = given.hidden.double() @ head.weight.double().T + head.bias.double()
    return (5 * torch.tanh(0.7 * logits / 5)).log_softmax(-1)


def test_against_plain_logits_in_float64() -> None:
    student, teacher = rows(1, 6), rows(2, 9)
    s, t = plain(student), plain(teacher)
    found = exact_distances(student, teacher, stop_ids=(3, 8))
    expected = {
        "reverse": (s.exp() * (s - t)).sum(-1),
        "forward": (t.exp() * (t - s)).sum(-1),
        "student_entropy": -(s.exp() * s).sum(-1),
        "teacher_entropy": -(t.exp() * t).sum(-1),
        "student_stop": s.exp()[:, 3] + s.exp()[:, 8],
        "teacher_stop": t.exp()[:, 3] + t.exp()[:, 8],
    }
    for name, value in expected.items():
        torch.testing.assert_close(getattr(found, name), value, rtol=2e-6, atol=2e-7)  # logits are float32


def test_two_coins_by_hand() -> None:
    """S = (1/2, 1/2), T = (1/4, 3/4): KL(S||T) = 1/2 log 2 + 1/2 log 2/3, KL(T||S) = 1/4 log 1/2 + 3/4 log 3/2."""

    def coin(p: float) -> TeacherRows:
        weight = torch.tensor([[math.log(p)], [math.log(1 - p)]], dtype=torch.float64)
        return TeacherRows(torch.ones(1, 1, dtype=torch.float64), Head(weight))

    found = exact_distances(coin(1 / 2), coin(1 / 4), stop_ids=(1,))
    assert found.reverse.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert found.forward.item() == pytest.approx(0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2))
    assert found.student_entropy.item() == pytest.approx(math.log(2))
    assert (found.student_stop.item(), found.teacher_stop.item()) == pytest.approx((0.5, 0.75))


def test_the_chunk_size_changes_nothing() -> None:
    student, teacher = rows(1, 6), rows(2, 9)
    whole, cut = (vars(exact_distances(student, teacher, (1,), size)) for size in (None, 2))
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=1e-6, atol=1e-9)
        assert value.dtype == torch.float64


def test_end_tokens_as_one_event() -> None:
    """The union of 2, 5 and 7 is one outcome: its probability is their sum in every term."""
    ends = (2, 5, 7)
    student, teacher = rows(1, 6, ends), rows(2, 9, ends)

    def merged(given: TeacherRows) -> torch.Tensor:
        p = plain(given).exp()
        others = [i for i in range(V) if i not in ends]
        return torch.cat([p[:, list(ends)].sum(-1, keepdim=True), p[:, others]], dim=1).log()

    s, t = merged(student), merged(teacher)
    found = exact_distances(student, teacher, ends)
    torch.testing.assert_close(found.reverse, (s.exp() * (s - t)).sum(-1), rtol=2e-6, atol=2e-7)
    torch.testing.assert_close(found.forward, (t.exp() * (t - s)).sum(-1), rtol=2e-6, atol=2e-7)
    torch.testing.assert_close(found.student_entropy, -(s.exp() * s).sum(-1), rtol=2e-6, atol=2e-7)
    torch.testing.assert_close(found.student_stop, s.exp()[:, 0], rtol=2e-6, atol=2e-7)


def test_unlike_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="same positions"):
        exact_distances(rows(1, 6), rows(2, 6, count=5), ())
    nothing = exact_distances(rows(1, 6, count=0), rows(2, 9, count=0), (1,))
    assert nothing.reverse.shape == (0,)
