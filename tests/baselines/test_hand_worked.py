"""Each method's credit on a small step, worked by hand."""

import math

import pytest
import torch

from baselines.eopd import EOPD
from baselines.opd import OPD
from baselines.reopold import REOPOLD
from baselines.reopold_2stage import REOPOLDTwoStage
from baselines.tropd import TrOPD
from harness.types import TokenBatch, TokenSignal

# One sequence: a prefix token, then four of the student's own.
#            prefix   own     own     own     own
TEACHER = [0.50, 0.60, 0.10, 0.02, 0.30]  # π_T(x)
STUDENT = [0.25, 0.30, 0.40, 0.80, 0.30]  # π_S(x)
# r = ln(π_T/π_S): ln 2 = 0.6931 (prefix), ln 2 = 0.6931, ln 0.25 = −1.3863, ln 0.025 = −3.6889, 0
R = [math.log(t / s) for t, s in zip(TEACHER, STUDENT, strict=True)]
OWN = torch.tensor([[False, True, True, True, True]])


def step(uniforms: list[float] | None = None) -> TokenBatch:
    zeros = torch.zeros(1, 5)
    student = torch.tensor([STUDENT]).log()
    return TokenBatch(zeros.long(), OWN, ~OWN, student, zeros if uniforms is None else torch.tensor([uniforms]))


def signals(
    teacher_entropy: list[float] | None = None, student_entropy: list[float] | None = None
) -> tuple[TokenSignal, TokenSignal]:
    def entropy(values: list[float] | None) -> torch.Tensor | None:
        return None if values is None else torch.tensor([values])

    return (
        TokenSignal(torch.tensor([TEACHER]).log(), entropy=entropy(teacher_entropy)),
        TokenSignal(torch.tensor([STUDENT]).log(), entropy=entropy(student_entropy)),
    )


def own(values: torch.Tensor) -> list[float]:
    return values[OWN].tolist()


def test_opd_is_the_log_ratio() -> None:
    credit = OPD().credit(step(), *signals(), progress=0.3)
    assert own(credit.advantages) == pytest.approx([0.6931, -1.3863, -3.6889, 0.0], abs=1e-4)
    assert not credit.divergence_weights.any()
    assert not credit.imitation_weights.any()


def test_eopd_adds_forward_kl_where_the_teacher_is_uncertain() -> None:
    # τ = 0.8 nats, ≥ at the threshold itself; the prefix token never counts; α scales
    credit = EOPD(alpha=0.5).credit(step(), *signals(teacher_entropy=[2.0, 0.79, 0.8, 1.5, 0.0]), progress=0.0)
    assert own(credit.advantages) == pytest.approx(R[1:], abs=1e-6)
    assert credit.divergence_weights.tolist() == [[0.0, 0.0, 0.5, 0.5, 0.0]]
    assert credit.metrics["gated_frac"] == pytest.approx(2 / 4)


def test_reopold_floors_the_reward_at_log_a_quarter() -> None:
    # λ = 0.2: log(0.2/0.8) = −1.3863; the second token sits on the floor, the third is cut
    credit = REOPOLD().credit(step(), *signals(), progress=0.0)
    assert own(credit.advantages) == pytest.approx([0.6931, -1.3863, -1.3863, 0.0], abs=1e-4)


def test_reopold_first_stage_drops_low_rewards_and_divides_by_the_kept() -> None:
    # floor −1: keeps 0.6931 and 0; 4 own tokens / 2 kept = 2
    credit = REOPOLDTwoStage(floor=-1.0).credit(step(), *signals(), progress=0.495)
    assert own(credit.advantages) == pytest.approx([2 * 0.6931, 0.0, 0.0, 0.0], abs=1e-4)
    assert credit.metrics["kept_frac"] == pytest.approx(0.5)


def test_reopold_second_stage_keeps_the_most_uncertain() -> None:
    # β = 0.5 of 4 own tokens: the two of highest student entropy (0.9, 0.7); the prefix's 5.0 is not looked at; × 4/2
    method = REOPOLDTwoStage(beta=0.5)
    credit = method.credit(step(), *signals(student_entropy=[5.0, 0.1, 0.9, 0.7, 0.2]), progress=0.5)
    assert own(credit.advantages) == pytest.approx([0.0, 2 * -1.3863, 2 * -1.3863, 0.0], abs=1e-4)


def test_reopold_explores_the_first_hundred_of_two_hundred_steps() -> None:
    # t_switch = 100 of 200 steps: t = 1 … 100 explore, and the trainer gives step t the progress (t − 1) / 200
    explores = [not REOPOLDTwoStage().request((t - 1) / 200).student_entropy for t in range(1, 201)]
    assert explores == [True] * 100 + [False] * 100
    entropy = [5.0, 0.1, 0.9, 0.7, 0.2]
    kept = [
        REOPOLDTwoStage(beta=0.25).credit(step(), *signals(student_entropy=entropy), progress=(t - 1) / 200).metrics
        for t in (100, 101)
    ]
    # by reward: r ≥ −1.3863 on three of four own tokens; by entropy: a quarter of them
    assert [metrics["kept_frac"] for metrics in kept] == pytest.approx([0.75, 0.25])


def test_tropd_gates_by_the_teachers_support() -> None:
    # P_trust = min(π_T/π_S, 1) on own tokens: 1, 0.25, 0.025, 1; trusted where u < P
    credit = TrOPD().credit(step(uniforms=[0.0, 0.99, 0.24, 0.026, 0.99]), *signals(), progress=0.0)
    assert own(credit.advantages) == pytest.approx([0.6931, -1.3863, 0.0, 0.0], abs=1e-4)
    assert credit.divergence_weights.tolist() == [[0.0, 0.0, 0.0, 1.0, 0.0]]
    assert credit.imitation_weights.tolist() == [[pytest.approx(1e-3), 0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [
        ("own_length", 0.0, [10, 40]),  # α = 1
        ("own_length", 0.5, [5, 20]),  # α = 1/2
        ("own_length", 0.25, [8, 34]),  # α = (1 + cos 45°)/2 = 0.85355: 8.5, 34.1
        ("own_length", 1.0, [0, 0]),
        ("annealed_maximum", 0.5, [10, 20]),  # min(L, 0.5·40)
        ("uniform", 0.5, [5, 10]),  # u·0.5·40 with u = 0.25, 0.5
        ("none", 0.0, [0, 0]),
    ],
)
def test_tropd_prefix_schedules(schedule: str, progress: float, expected: list[int]) -> None:
    lengths = TrOPD(prefix_schedule=schedule).prefix_lengths(
        progress, torch.tensor([10, 40]), torch.tensor([0.25, 0.5])
    )
    assert lengths.tolist() == expected


def test_knob_off_equals_opd_bit_for_bit() -> None:
    reference = OPD().credit(step(), *signals(), progress=0.0)
    entropy = {"teacher_entropy": [9.0] * 5}
    for method in (EOPD(entropy_threshold=math.inf), REOPOLD(floor=-math.inf)):
        credit = method.credit(step(), *signals(**entropy), progress=0.0)
        assert torch.equal(credit.advantages, reference.advantages)
        assert torch.equal(credit.divergence_weights, reference.divergence_weights)


def test_unknown_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="prefix_schedule"):
        TrOPD(prefix_schedule="linear")
