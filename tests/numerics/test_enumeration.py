"""Exact enumeration over a small vocabulary: what the sampled estimators estimate, with no sampling error."""

import numpy as np
import pytest
import torch

from baselines.opd import OPD
from baselines.tropd import TrOPD
from harness.divergences import topk_forward_kl
from harness.numerics.credit import compute_coefficients, compute_loss_terms
from harness.rollout import Sampling
from harness.rollout.hf import draw_tokens
from harness.seeds import generator_of
from harness.types import Method, TokenBatch, TokenSignal

V = 6


def distributions() -> tuple[torch.Tensor, torch.Tensor]:
    """Teacher log-probs and student logits of one state, float64."""
    generator = torch.Generator().manual_seed(3)
    teacher = (1.5 * torch.randn(V, generator=generator, dtype=torch.float64)).log_softmax(-1)
    logits = (1.5 * torch.randn(V, generator=generator, dtype=torch.float64)).requires_grad_()
    return teacher, logits


def sampled_gradient(
    method: Method, token: int, uniform: float, teacher: torch.Tensor, logits: torch.Tensor
) -> torch.Tensor:
    """The loss's gradient when `token` was sampled, through the harness's own credit and loss."""
    one = torch.ones(1, 1)
    student = logits.log_softmax(-1)
    batch = TokenBatch(torch.tensor([[token]]), one.bool(), ~one.bool(), student.detach()[token] * one, uniform * one)
    signals = [TokenSignal(lp.detach()[token].reshape(1, 1)) for lp in (teacher, student)]
    credit = method.credit(batch, *signals, progress=0.0)
    coefficients = compute_coefficients(credit, batch)
    weight = coefficients.divergence[0]
    divergence = topk_forward_kl(teacher[None], student[None])  # k = V: the whole support
    terms = compute_loss_terms(
        student[token][None], coefficients.policy[0], coefficients.imitation[0], divergence, weight
    )
    (gradient,) = torch.autograd.grad(terms.total(), logits)
    return gradient


def test_expected_k1_gradient_is_the_gradient_of_the_reverse_kl() -> None:
    teacher, logits = distributions()
    probabilities = logits.detach().softmax(-1)
    expected = sum(probabilities[x] * sampled_gradient(OPD(), x, 0.0, teacher, logits) for x in range(V))
    student = logits.log_softmax(-1)
    (truth,) = torch.autograd.grad((student.exp() * (student - teacher)).sum(), logits)
    torch.testing.assert_close(expected, truth, rtol=1e-9, atol=1e-12)


def test_backpropagated_k1_has_no_expected_gradient() -> None:
    """The bug that an advantage avoids: E[∇(log π_S(x) − log π_T(x))] = 0, no teacher in it."""
    _, logits = distributions()
    student = logits.log_softmax(-1)
    direct = sum(
        student.detach().exp()[x] * torch.autograd.grad(student[x], logits, retain_graph=True)[0] for x in range(V)
    )
    torch.testing.assert_close(direct, torch.zeros(V, dtype=torch.float64), rtol=0, atol=1e-12)


def test_teacher_equal_to_student_gives_no_gradient_at_all() -> None:
    _, logits = distributions()
    same = logits.detach().log_softmax(-1)
    for method in (OPD(), TrOPD()):
        for token in range(V):
            gradient = sampled_gradient(method, token, 0.999, same, logits)
            torch.testing.assert_close(gradient, torch.zeros(V, dtype=torch.float64), rtol=0, atol=1e-12)


def test_expected_tropd_gradient() -> None:
    """E over the token and M: Σ_x min(π_S, π_T)·r·(−∇log π_S(x)) + TV·∇FKL (methods: structure facts 1 and 3)."""
    teacher, logits = distributions()
    student = logits.log_softmax(-1)
    p, q = student.detach().exp(), teacher.exp()
    expected = torch.zeros(V, dtype=torch.float64)
    for x in range(V):
        trust = min(float(q[x] / p[x]), 1.0)
        for share, uniform in ((trust, 0.0), (1 - trust, 1.0 - 1e-9)):
            if share > 0:
                expected += p[x] * share * sampled_gradient(TrOPD(), x, uniform, teacher, logits)
    total_variation = 0.5 * (p - q).abs().sum()
    trusted = -(torch.minimum(p, q) * (teacher - student.detach()) * student).sum()
    (truth,) = torch.autograd.grad(trusted + total_variation * topk_forward_kl(teacher[None], student[None])[0], logits)
    torch.testing.assert_close(expected, truth, rtol=1e-6, atol=1e-8)


def test_outlier_rate_is_the_total_variation_with_the_streams_really_drawn() -> None:
    """P(M = 0) = TV(π_S, π_T): tokens by the engine's sampler from `sampling`, the gate from `credit`; 4 standard
    errors.

    Student (0.5, 0.5), teacher (0.2, 0.8): trust is 0.4 and 1, TV = 0.3. One uniform for both draws would reject only u
    in [0.4, 0.5): 0.1.
    """
    student, teacher = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.2, 0.8]).log()
    n = 100_000
    sampling = torch.from_numpy(generator_of("sampling", 0, 0, 0, 0).random(n))
    gate = torch.from_numpy(generator_of("credit", 0, 0, 0, 0).random(n))
    tokens, _ = draw_tokens(student.expand(n, 2), sampling, Sampling(1))
    trust = TrOPD().trust_probability((teacher - student)[tokens])
    tolerance = 4 * np.sqrt(0.3 * 0.7 / n)  # 0.0058
    assert (gate >= trust).double().mean().item() == pytest.approx(0.3, abs=tolerance)
    assert (sampling >= trust).double().mean().item() == pytest.approx(0.1, abs=tolerance)


def test_attenuated_negative_rewards_are_bounded() -> None:
    """|P_trust·r| ≤ 1/e for r < 0, with equality at r = −1."""
    rewards = torch.linspace(-50, 0, 10_001, dtype=torch.float64)
    attenuated = TrOPD().trust_probability(rewards) * rewards
    assert attenuated.min().item() == pytest.approx(-np.exp(-1), abs=1e-6)
