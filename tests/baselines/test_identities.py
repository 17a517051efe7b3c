"""What each method does in expectation, by exact enumeration over a small vocabulary through the harness's own credit
and loss.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from baselines.additive_trust import AdditiveTrust
from baselines.aopd import AOPD, unsupported
from baselines.fkl_direct import FKLDirect
from baselines.fkl_outlier import FKLOutlier
from baselines.fkl_scalar import FKLScalar
from baselines.gkd import GKD
from baselines.jsd import JSD
from baselines.opd import OPD
from baselines.random_gate import RandomGate
from baselines.reverse_kl import ReverseKL
from baselines.seqkd import SeqKD
from baselines.topd import TOPD
from baselines.tropd import TrOPD
from baselines.tropd_expected import TrOPDExpected
from baselines.tropd_scalar import TrOPDScalar
from baselines.tropd_scalar_prefix import TrOPDScalarPrefix
from baselines.vopd import VOPD
from harness.config.methods import find_methods
from harness.divergences import exact_reverse_kl, jensen_shannon, tail_forward_kl, topk_forward_kl
from harness.numerics.credit import compute_coefficients, compute_loss_terms
from harness.types import Method, TokenBatch, TokenSignal

V = 6
ZERO = torch.zeros(V, dtype=torch.float64)


def distributions(seed: int = 3) -> tuple[Tensor, Tensor]:
    """Teacher log-probs and student logits of one state, float64."""
    generator = torch.Generator().manual_seed(seed)
    teacher = (1.5 * torch.randn(V, generator=generator, dtype=torch.float64)).log_softmax(-1)
    return teacher, (1.5 * torch.randn(V, generator=generator, dtype=torch.float64)).requires_grad_()


def gradient(
    method: Method, token: int, teacher: Tensor, logits: Tensor, uniform: float = 0.5, own: bool = True, k: int = V
) -> Tensor:
    """Of the loss, with respect to the student's logits, when this one token was written at this state. [V]"""
    student = logits.log_softmax(-1)
    ids = teacher.topk(k).indices
    one = torch.ones(1, 1, dtype=torch.float64)
    mask = one.bool() if own else ~one.bool()
    batch = TokenBatch(torch.tensor([[token]]), mask, ~mask, student.detach()[token] * one, uniform * one)

    def signal(logprobs: Tensor) -> TokenSignal:
        entropy = -(logprobs.exp() * logprobs).sum() * one
        return TokenSignal(logprobs[token] * one, ids[None, None], logprobs[ids][None, None], entropy)

    credit = method.credit(batch, signal(teacher), signal(student.detach()), progress=0.0)
    coefficients = compute_coefficients(credit, batch)
    support = slice(None) if method.request(0.0).full_vocabulary else ids
    divergence = (credit.divergence or topk_forward_kl)(teacher[support][None], student[support][None])
    terms = compute_loss_terms(
        student[token][None], coefficients.policy[0], coefficients.imitation[0], divergence, coefficients.divergence[0]
    )
    return torch.autograd.grad(terms.total(), logits)[0]


def expectation(method: Method, teacher: Tensor, logits: Tensor, k: int = V) -> Tensor:
    """E over x ~ π_S, and over the gate's draw (P_trust of the uniforms fall below it)."""
    total = ZERO.clone()
    for x, p in enumerate(logits.detach().softmax(-1)):
        trust = min(float(teacher[x].exp() / p), 1.0)
        for share, uniform in ((trust, 0.0), (1 - trust, 1.0 - 1e-12)):
            if share > 0:
                total += p * share * gradient(method, x, teacher, logits, uniform, k=k)
    return total


def gradient_of(value: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """Of value(student log-probs)."""
    return torch.autograd.grad(value(logits.log_softmax(-1)).sum(), logits)[0]


def assert_equal(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_k1_estimates_what_the_exact_reverse_kl_computes() -> None:
    teacher, logits = distributions()
    exact = gradient(ReverseKL(), 0, teacher, logits)
    assert_equal(expectation(OPD(), teacher, logits), exact)
    assert_equal(exact, gradient_of(lambda s: exact_reverse_kl(teacher[None], s[None]), logits))
    assert exact.norm() > 0.1


@pytest.mark.parametrize("method", [ReverseKL(), FKLDirect(), GKD()], ids=lambda m: type(m).__name__)
def test_direct_methods_do_not_depend_on_the_sampled_token(method: Method) -> None:
    teacher, logits = distributions()
    for token in range(1, V):
        assert torch.equal(gradient(method, token, teacher, logits), gradient(method, 0, teacher, logits))


@pytest.mark.parametrize("k", [2, V])
def test_scalar_forward_kl_on_every_token_teaches_nothing(k: int) -> None:
    """Its advantage does not depend on the token: expected gradient 0, while every single token is
    pushed down or up.
    """
    teacher, logits = distributions()
    torch.testing.assert_close(expectation(FKLScalar(), teacher, logits, k), ZERO, rtol=0, atol=1e-12)
    assert gradient(FKLScalar(), 0, teacher, logits, k=k).norm() > 0.1
    assert expectation(FKLDirect(), teacher, logits, k).norm() > 0.1  # the direct reading does teach


def test_scalar_outliers_pull_towards_the_overlap() -> None:
    """E of the outlier term = −FKL_k·Σ_x min(π_S, π_T)·∇log π_S(x): a penalty on the rejected, not imitation of the
    teacher.
    """
    teacher, logits = distributions()
    forward = topk_forward_kl(teacher[None], logits.detach().log_softmax(-1)[None]).item()
    assert 0 < forward < 5  # not floored
    overlap = torch.minimum(logits.detach().softmax(-1), teacher.exp())
    outliers = gradient_of(lambda s: -forward * (overlap * s), logits)
    trusted = gradient_of(lambda s: -(overlap * (teacher - s.detach()) * s), logits)
    assert_equal(expectation(TrOPDScalar(), teacher, logits), trusted + outliers)
    direct = expectation(FKLOutlier(), teacher, logits) - trusted
    assert torch.cosine_similarity(outliers, direct, dim=0) < 0.99


def test_scalar_prefix_term_points_away_from_imitation() -> None:
    """Over x ~ π_T its mean advantage is −β·KL(π_T‖π_S), and its gradient opposes that of the likelihood."""
    for seed in range(5):
        teacher, logits = distributions(seed)
        q, student = teacher.exp(), logits.detach().log_softmax(-1)

        def over_teacher(method: Method, teacher: Tensor = teacher, logits: Tensor = logits) -> Tensor:
            rows = [teacher[x].exp() * gradient(method, x, teacher, logits, own=False) for x in range(V)]
            return torch.stack(rows).sum(0)

        scalar, printed = over_teacher(TrOPDScalarPrefix(beta=1.0)), over_teacher(TrOPD(beta=1.0))
        assert_equal(printed, over_teacher(SeqKD()))
        assert_equal(printed, gradient_of(lambda s, t=teacher: topk_forward_kl(t[None], s[None]), logits))
        assert_equal(scalar, gradient_of(lambda s, q=q, t=teacher: -(q * (s.detach() - t) * s), logits))
        assert (q * (student - teacher)).sum() < 0
        assert torch.cosine_similarity(scalar, printed, dim=0) < -0.5


def test_outlier_rate_is_the_total_variation() -> None:
    teacher, logits = distributions()
    p = logits.detach().softmax(-1)
    trust = TrOPD().trust_probability(teacher - p.log())
    assert (p * (1 - trust)).sum().item() == pytest.approx(0.5 * (p - teacher.exp()).abs().sum().item(), rel=1e-12)


def test_expected_mask_has_the_same_mean_and_less_variance() -> None:
    teacher, logits = distributions()
    p = logits.detach().softmax(-1)
    assert_equal(expectation(TrOPDExpected(), teacher, logits), expectation(TrOPD(), teacher, logits))

    def second_moment(method: Method) -> float:
        total = 0.0
        for x in range(V):
            trust = min(float(teacher[x].exp() / p[x]), 1.0)
            for share, uniform in ((trust, 0.0), (1 - trust, 1.0 - 1e-12)):
                total += float(p[x] * share * gradient(method, x, teacher, logits, uniform).square().sum())
        return total

    assert second_moment(TrOPDExpected()) < second_moment(TrOPD())


def test_expected_masks_penalty_is_bounded() -> None:
    """P·r ≥ −1/e, so no sampled token is pushed down harder than that."""
    rewards = torch.linspace(-30, 3, 3301, dtype=torch.float64)[None]
    own = torch.ones_like(rewards).bool()
    batch = TokenBatch(own.long(), own, ~own, -torch.ones_like(rewards), torch.zeros_like(rewards))
    sides = TokenSignal(rewards - 1), TokenSignal(-torch.ones_like(rewards))
    credit = TrOPDExpected().credit(batch, *sides, progress=0.0)
    assert credit.advantages.min().item() == pytest.approx(-math.exp(-1), abs=1e-6)
    assert TOPD(0.2).credit(batch, *sides, progress=0.0).advantages.min().item() > math.log(0.8)


def test_additive_trust_is_reverse_kl_plus_forward_kl_by_the_total_variation() -> None:
    teacher, logits = distributions()
    assert (teacher - logits.detach().log_softmax(-1)).min() > -5  # the floor is not reached
    tv = 0.5 * (logits.detach().softmax(-1) - teacher.exp()).abs().sum()
    truth = gradient_of(
        lambda s: exact_reverse_kl(teacher[None], s[None]) + tv * topk_forward_kl(teacher[None], s[None]), logits
    )
    assert_equal(expectation(AdditiveTrust(), teacher, logits), truth)


def test_control_variate_keeps_the_mean_and_lowers_the_variance() -> None:
    teacher, logits = distributions()
    p = logits.detach().softmax(-1)
    for k in (2, V):  # unbiased whatever the baseline is
        assert_equal(expectation(VOPD(), teacher, logits, k), expectation(OPD(), teacher, logits, k))

    def second_moment(method: Method) -> float:
        return sum(float(p[x] * gradient(method, x, teacher, logits).square().sum()) for x in range(V))

    assert second_moment(VOPD()) < second_moment(OPD())


def test_control_variate_centres_the_advantage() -> None:
    """With the whole vocabulary E_{x~π_S}[A] = 0: r + KL has mean −KL + KL."""
    teacher, logits = distributions()
    student = logits.detach().log_softmax(-1)
    ids = torch.arange(V).expand(1, V, V)
    own = torch.ones(1, V).bool()
    sides = [TokenSignal(lp[None], ids, lp.expand(1, V, V)) for lp in (teacher, student)]
    batch = TokenBatch(torch.arange(V)[None], own, ~own, student[None], torch.zeros(1, V))
    advantages = VOPD().credit(batch, *sides, progress=0.0).advantages[0]
    assert (student.exp() * advantages).sum().item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("beta", [0.2, 0.5])
def test_the_sampled_part_of_the_jsd_row_is_already_the_whole_gradient(beta: float) -> None:
    """The gradients through the mixture cancel, β·Σ π_T·∇M/M + (1−β)·Σ π_S·∇M/M = Σ ∇M = 0; the row's first sum comes
    on top.
    """
    teacher, logits = distributions()
    exact = gradient(GKD(beta=beta), 0, teacher, logits)
    assert_equal(exact, gradient_of(lambda s: jensen_shannon(teacher[None], s[None], beta), logits))
    row = JSD(beta=beta)
    first_sum = gradient_of(lambda s: row.teacher_part(teacher[None], s[None]), logits)
    assert_equal(expectation(row, teacher, logits), exact + first_sum)
    assert torch.dot(first_sum, exact) > 0  # a further pull in the same half-space


def test_tropd_is_a_soft_aopd() -> None:
    """An outlier (M = 0) has r < 0, so AOPD's gate selects it for certain; the converse does not hold."""
    teacher, logits = distributions()
    student = logits.detach().log_softmax(-1)
    sides = TokenSignal(teacher[None]), TokenSignal(student[None])
    gate = unsupported(*sides, threshold=0.0)[0]
    trust = TrOPD().trust_probability(teacher - student)
    assert torch.equal(gate, trust < 1)
    assert ((trust > 0) & gate).any()


def test_aopd_between_opd_and_forward_kl() -> None:
    teacher, logits = distributions()
    for token in range(V):
        closed, opened = AOPD(threshold=1.0), AOPD(threshold=-1.0)
        assert_equal(gradient(closed, token, teacher, logits), gradient(FKLDirect(), token, teacher, logits))
        assert_equal(gradient(opened, token, teacher, logits), gradient(OPD(), token, teacher, logits))


def test_random_gate_does_not_depend_on_the_reward() -> None:
    """One mask for all rewards of the same mean trust: permuting them over the tokens leaves M where it is."""
    generator = torch.Generator().manual_seed(1)
    rewards = 2 * torch.randn(1, 4000, generator=generator)
    uniforms, own = torch.rand(1, 4000, generator=generator), torch.ones(1, 4000).bool()
    batch = TokenBatch(own.long(), own, ~own, rewards, uniforms)
    mask = RandomGate().draw_mask(rewards, batch)
    assert torch.equal(mask, RandomGate().draw_mask(rewards.sort().values, batch))
    rate = TrOPD().trust_probability(rewards).mean().item()
    assert mask.float().mean().item() == pytest.approx(rate, abs=4 * 0.5 / math.sqrt(4000))  # 4 standard errors
    correlation = torch.corrcoef(torch.stack([mask[0].float(), rewards[0]]))[0, 1].item()
    assert abs(correlation) < 4 / math.sqrt(4000)
    assert torch.corrcoef(torch.stack([TrOPD().draw_mask(rewards, batch)[0].float(), rewards[0]]))[0, 1] > 0.5


def test_tail_bucket_leaves_the_tail_alone_where_its_mass_is_right() -> None:
    """Tail masses equal, heads different: the atom pushes no tail logit, the truncated sum pushes all of them down."""
    teacher = torch.tensor([0.5, 0.3, 0.1, 0.1], dtype=torch.float64).log()
    logits = torch.tensor([0.3, 0.5, 0.15, 0.05], dtype=torch.float64).log().requires_grad_()
    with_atom = gradient_of(lambda s: tail_forward_kl(teacher[None, :2], s[None, :2]), logits)
    without = gradient_of(lambda s: topk_forward_kl(teacher[None, :2], s[None, :2]), logits)
    # with: π_S − π_T = −0.2, 0.2, and 0; without: 0.8·π_S − π_T·1 = 0.8·0.3 − 0.5, 0.8·0.5 − 0.3, 0.8·0.15, 0.8·0.05
    assert with_atom.tolist() == pytest.approx([-0.2, 0.2, 0.0, 0.0], abs=1e-12)
    assert without.tolist() == pytest.approx([-0.26, 0.10, 0.12, 0.04], abs=1e-12)


ON_POLICY = sorted(name for name, method in find_methods().items() if method().writer(0.0, 0.0) == "student")


@pytest.mark.parametrize("name", ON_POLICY)
def test_a_student_that_equals_its_teacher_learns_nothing(name: str) -> None:
    _, logits = distributions()
    same = logits.detach().log_softmax(-1)
    for token in range(V):
        for uniform in (0.0, 0.999):
            found = gradient(find_methods()[name](), token, same, logits, uniform)
            torch.testing.assert_close(found, ZERO, rtol=0, atol=1e-12)
