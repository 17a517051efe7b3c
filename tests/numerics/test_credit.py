"""Credit to loss: denominators, masks, NaN under the mask, masked = compacted."""

import math

import pytest
import torch

from harness.numerics.credit import compute_coefficients, compute_loss_terms, importance_ratios
from harness.types import TokenBatch, TokenCredit

NAN = float("nan")


def small_batch() -> TokenBatch:
    """Two sequences: 1 prefix + 2 own tokens, and 1 own token; T = 3."""
    own = torch.tensor([[False, True, True], [True, False, False]])
    prefix = torch.tensor([[True, False, False], [False, False, False]])
    zeros = torch.zeros(2, 3)
    return TokenBatch(zeros.long(), own, prefix, zeros, zeros)


def credit(advantages: list, divergence: list, imitation: list) -> TokenCredit:
    return TokenCredit(torch.tensor(advantages), torch.tensor(divergence), torch.tensor(imitation))


def test_each_origin_has_its_own_denominator() -> None:
    # 3 own tokens, 1 token of another writer
    coefficients = compute_coefficients(
        credit(
            [[9.0, 3.0, -6.0], [1.5, 9.0, 9.0]], [[2.0, 0.0, 3.0], [0.0, 9.0, 9.0]], [[0.25, 9.0, 9.0], [9.0, 9.0, 9.0]]
        ),
        small_batch(),
    )
    assert coefficients.policy.tolist() == [[0.0, 1.0, -2.0], [0.5, 0.0, 0.0]]  # /3 on own tokens only
    assert coefficients.divergence.tolist() == [[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]]  # /1 on the prefix, /3 on own tokens
    assert coefficients.imitation.tolist() == [[0.25, 0.0, 0.0], [0.0, 0.0, 0.0]]  # /1, on the prefix only


def test_the_counts_are_those_of_the_whole_step() -> None:
    """4 own tokens and 2 of another writer; padding has no denominator, also where nobody else has written."""
    own = torch.tensor([[True, True, False, False], [True, True, False, False]])
    prefix = torch.tensor([[False, False, True, True], [False, False, False, False]])
    zeros, ones = torch.zeros(2, 4), torch.ones(2, 4)
    found = compute_coefficients(TokenCredit(ones, ones, ones), TokenBatch(zeros.long(), own, prefix, zeros, zeros))
    assert found.policy.tolist() == [[0.25, 0.25, 0.0, 0.0], [0.25, 0.25, 0.0, 0.0]]
    assert found.divergence.tolist() == [[0.25, 0.25, 0.5, 0.5], [0.25, 0.25, 0.0, 0.0]]
    assert found.imitation.tolist() == [[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]]
    alone = TokenBatch(zeros.long(), own, torch.zeros_like(own), zeros, zeros)
    found = compute_coefficients(TokenCredit(ones, ones, ones), alone)
    assert found.policy.tolist() == found.divergence.tolist() == [[0.25, 0.25, 0.0, 0.0]] * 2
    assert found.imitation.tolist() == [[0.0] * 4] * 2


def test_hand_worked_loss() -> None:
    # policy: −(0.5·ln 0.25) = 0.5·1.38629 = 0.69315; imitation: −(0.1·ln 0.5) = 0.06931; divergence: 0.2·3 = 0.6
    logprobs = torch.tensor([0.25, 0.5]).log()
    terms = compute_loss_terms(
        logprobs, torch.tensor([0.5, 0.0]), torch.tensor([0.0, 0.1]), torch.tensor([3.0]), torch.tensor([0.2])
    )
    assert terms.policy.item() == pytest.approx(0.5 * math.log(4), rel=1e-6)
    assert terms.imitation.item() == pytest.approx(0.1 * math.log(2), rel=1e-6)
    assert terms.divergence.item() == pytest.approx(0.6, rel=1e-6)
    assert terms.total().item() == pytest.approx(0.5 * math.log(4) + 0.1 * math.log(2) + 0.6, rel=1e-6)


def test_nan_under_the_mask_is_harmless() -> None:
    clean = credit(
        [[0.0, 3.0, -6.0], [1.5, 0.0, 0.0]], [[2.0, 0.0, 3.0], [0.0, 0.0, 0.0]], [[0.25] + [0.0] * 2, [0.0] * 3]
    )
    dirty = credit(
        [[NAN, 3.0, -6.0], [1.5, NAN, NAN]], [[2.0, 0.0, 3.0], [0.0, NAN, NAN]], [[0.25, NAN, NAN], [NAN] * 3]
    )
    for a, b in zip(
        vars(compute_coefficients(clean, small_batch())).values(),
        vars(compute_coefficients(dirty, small_batch())).values(),
        strict=True,
    ):
        assert torch.equal(a, b)


NAMES = ("advantages", "divergence_weights", "imitation_weights")
VALID = {"advantages": (0, 1), "divergence_weights": (0, 1), "imitation_weights": (0, 0)}  # a token where it counts


def credit_with(name: str, values: torch.Tensor) -> TokenCredit:
    return TokenCredit(*(values if name == other else torch.zeros(2, 3) for other in NAMES))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [NAN, float("inf"), -float("inf")])
def test_non_finite_credit_on_a_valid_token_stops_the_run(bad: float, name: str) -> None:
    values = torch.zeros(2, 3)
    values[VALID[name]] = bad
    with pytest.raises(FloatingPointError, match=rf"^{name} holds a non-finite value on a valid token$"):
        compute_coefficients(credit_with(name, values), small_batch())


def test_negative_divergence_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="divergence_weights"):
        compute_coefficients(credit([[0.0] * 3] * 2, [[0.0, -1.0, 0.0], [0.0] * 3], [[0.0] * 3] * 2), small_batch())


@pytest.mark.parametrize("name", NAMES)
def test_wrong_shape_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} has shape \(2, 2\), the step has \(2, 3\)$"):
        compute_coefficients(credit_with(name, torch.zeros(2, 2)), small_batch())


@pytest.mark.parametrize("name", NAMES)
def test_a_method_that_forgot_to_detach_gives_no_gradient(name: str) -> None:
    values = torch.ones(2, 3, requires_grad=True)
    found = compute_coefficients(credit_with(name, values), small_batch())
    assert not any(coefficient.requires_grad for coefficient in vars(found).values())


def test_an_empty_sum_is_zero() -> None:
    empty = torch.zeros(0)
    assert compute_loss_terms(empty, empty, empty, empty, empty).total().item() == 0.0


@pytest.mark.parametrize("term", ["policy", "imitation", "divergence"])
def test_coefficients_carry_no_gradient(term: str) -> None:
    """d(−c·x) = −c and d(c·x) = c where c = 2x is a number: with its own gradient the result would
    be twice as large.
    """
    value = torch.tensor([0.5]).log().requires_grad_()
    zero, coefficient = torch.zeros(1), 2.0 * value
    parts = {"policy": zero, "imitation": zero, "divergence_weights": zero, "divergences": zero, "logprobs": value}
    parts |= {"divergence_weights": coefficient, "divergences": value} if term == "divergence" else {term: coefficient}
    compute_loss_terms(**parts).total().backward()
    sign = 1 if term == "divergence" else -1
    assert value.grad is not None
    assert value.grad.item() == pytest.approx(sign * coefficient.item())


def test_importance_ratios_hand_worked() -> None:
    """π_trainer / π_engine = 0.4/0.2 = 2, 0.1/0.2 = 1/2, capped 0.8/0.1 = 8 -> 3; a prefix token and padding have 1."""
    own = torch.tensor([[False, True, True, True, False]])
    engine = torch.tensor([[0.0, 0.2, 0.2, 0.1, 0.0]]).log().nan_to_num(neginf=0.0)
    trainer = torch.tensor([[0.5, 0.4, 0.1, 0.8, 0.0]]).log().requires_grad_()
    batch = TokenBatch(
        labels=torch.zeros(1, 5, dtype=torch.long),
        on_policy_mask=own,
        prefix_mask=torch.tensor([[True, False, False, False, False]]),
        rollout_logprobs=engine,
        uniforms=torch.zeros(1, 5),
    )
    ratios = importance_ratios(batch, trainer, cap=3.0)
    torch.testing.assert_close(ratios, torch.tensor([[1.0, 2.0, 0.5, 3.0, 1.0]]))
    assert not ratios.requires_grad
