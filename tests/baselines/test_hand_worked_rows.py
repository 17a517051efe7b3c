"""The credit of the tables' further rows, and of the repairs and nulls, worked by hand."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from baselines.additive_trust import AdditiveTrust
from baselines.additive_trust_stop import AdditiveTrustStop
from baselines.aopd import AOPD
from baselines.clip_outlier import ClipOutlier
from baselines.entropy_opd import EntropyOPD
from baselines.fixed_negative import FixedNegative
from baselines.fkl_direct import FKLDirect
from baselines.fkl_outlier import FKLOutlier
from baselines.fkl_scalar import FKLScalar
from baselines.fkl_stop import FKLStop
from baselines.fkl_tail import FKLTail
from baselines.gkd import GKD
from baselines.jsd import JSD
from baselines.mask_outlier import MaskOutlier
from baselines.opd import OPD
from baselines.random_gate import RandomGate
from baselines.random_stop import RandomStop
from baselines.reopold import REOPOLD
from baselines.reverse_kl import ReverseKL
from baselines.seqkd import SeqKD
from baselines.sft import SFT
from baselines.topd import TOPD
from baselines.tropd import TrOPD
from baselines.tropd_aopd import TrOPDAOPD
from baselines.tropd_clip import TrOPDClip
from baselines.tropd_expected import TrOPDExpected
from baselines.tropd_mask import TrOPDMask
from baselines.tropd_scalar import TrOPDScalar
from baselines.tropd_scalar_prefix import TrOPDScalarPrefix
from baselines.tropd_stop import TrOPDStop
from baselines.vopd import VOPD
from harness.numerics.credit import compute_coefficients
from harness.types import Method, TokenBatch, TokenCredit, TokenSignal

# One sequence: a prefix token, then four of the student's own.
#            prefix   own     own     own     own
TEACHER = [0.50, 0.60, 0.10, 0.02, 0.30]  # π_T(x)
STUDENT = [0.25, 0.30, 0.40, 0.80, 0.30]  # π_S(x)
# r = ln(π_T/π_S): 0.6931 (prefix); 0.6931, −1.3863, −3.6889, 0
# P_trust = min(π_T/π_S, 1) on own tokens: 1, 0.25, 0.025, 1
# uniforms of the gate:  own tokens trusted, trusted, outlier, trusted
UNIFORMS = [0.0, 0.99, 0.24, 0.026, 0.99]
OWN = [False, True, True, True, True]
PREFIX_ONLY = [[pytest.approx(1e-3), 0.0, 0.0, 0.0, 0.0]]


def step(uniforms: list[float] = UNIFORMS, own: list[bool] = OWN) -> TokenBatch:
    mask = torch.tensor([own])
    return TokenBatch(torch.zeros(1, 5).long(), mask, ~mask, torch.tensor([STUDENT]).log(), torch.tensor([uniforms]))


def signals(**student: Tensor) -> tuple[TokenSignal, TokenSignal]:
    return TokenSignal(torch.tensor([TEACHER]).log()), TokenSignal(torch.tensor([STUDENT]).log(), **student)


def with_top_two(teacher: list[float], student: list[float]) -> tuple[TokenSignal, TokenSignal]:
    """The same two probabilities at the teacher's top two ids, at every position."""
    ids = torch.tensor([0, 1]).expand(1, 5, 2)
    sides = [torch.tensor(values).log().expand(1, 5, 2) for values in (teacher, student)]
    return tuple(
        dataclasses.replace(signal, topk_ids=ids, topk_logprobs=side)
        for signal, side in zip(signals(), sides, strict=True)
    )  # type: ignore[return-value]


def credit_of(method: Method, **changes) -> TokenCredit:
    credit = method.credit(step(**changes), *signals(), progress=0.0)
    compute_coefficients(credit, step(**changes))  # accepted by the harness
    return credit


def own(values: Tensor) -> list[float]:
    return values[0, 1:].tolist()


def test_clip_outlier_is_reopold_under_another_name() -> None:
    credit = credit_of(ClipOutlier())
    assert own(credit.advantages) == pytest.approx([0.6931, -1.3863, -1.3863, 0.0], abs=1e-4)
    assert torch.equal(credit.advantages, credit_of(REOPOLD()).advantages)


def test_mask_outlier_drops_what_is_not_above_the_threshold() -> None:
    # threshold −1.5 keeps −1.3863; at −1 it goes as well; the dropped 1 of 4 is reported
    credit = credit_of(MaskOutlier(threshold=-1.5))
    assert own(credit.advantages) == pytest.approx([0.6931, -1.3863, 0.0, 0.0], abs=1e-4)
    assert credit.metrics["masked_frac"] == pytest.approx(1 / 4)
    assert own(credit_of(MaskOutlier(threshold=-1.0)).advantages) == pytest.approx([0.6931, 0.0, 0.0, 0.0], abs=1e-4)


def test_entropy_opd_keeps_the_most_uncertain_fifth() -> None:
    # ⌈0.2·4⌉ = 1 token, the third (0.9); the prefix's 5.0 is not looked at; no floor; × 4 own / 1 kept
    method, entropy = EntropyOPD(), torch.tensor([[5.0, 0.1, 0.7, 0.9, 0.2]])
    assert method.request(0.0).student_entropy
    credit = method.credit(step(), *signals(entropy=entropy), progress=0.0)
    assert own(credit.advantages) == pytest.approx([0.0, 0.0, 4 * -3.6889, 0.0], abs=1e-3)
    half = EntropyOPD(share=0.5).credit(step(), *signals(entropy=entropy), progress=1.0)  # 2 tokens, × 4/2
    assert own(half.advantages) == pytest.approx([0.0, 2 * -1.3863, 2 * -3.6889, 0.0], abs=1e-3)


def test_fkl_direct_weighs_every_own_token_alike() -> None:
    for method in (FKLDirect(), FKLTail(), ReverseKL()):
        credit = credit_of(method)
        assert credit.divergence_weights.tolist() == [[0.0, 1.0, 1.0, 1.0, 1.0]]
        assert not credit.advantages.any()
        assert not credit.imitation_weights.any()


def test_fkl_variants_differ_in_their_divergence() -> None:
    teacher, student = torch.tensor([[0.5, 0.25]]).log(), torch.tensor([[0.25, 0.25]]).log()
    assert credit_of(FKLDirect()).divergence is None  # the default, top-k forward KL
    tail, reverse = credit_of(FKLTail()).divergence, credit_of(ReverseKL()).divergence
    # with the tail (0.25 against 0.5): 0.5·ln 2 + 0 + 0.25·ln 0.5; reverse on the two: 0.25·ln 0.5 + 0
    assert tail(teacher, student).item() == pytest.approx(0.25 * math.log(2), rel=1e-5)
    assert reverse(teacher, student).item() == pytest.approx(0.25 * math.log(0.5), rel=1e-5)
    assert ReverseKL().request(0.0).full_vocabulary


def test_fkl_scalar_is_minus_the_truncated_sum() -> None:
    # 0.6·ln(0.6/0.3) + 0.2·ln(0.2/0.4) = 0.4·ln 2 = 0.27726, at every position
    method = FKLScalar()
    assert method.request(0.0).teacher_topk
    assert method.request(0.0).student_at_topk
    credit = method.credit(step(), *with_top_two([0.6, 0.2], [0.3, 0.4]), progress=0.0)
    assert own(credit.advantages) == pytest.approx([-0.27726] * 4, abs=1e-4)
    assert not credit.divergence_weights.any()


def test_fkl_scalar_is_floored_and_may_be_positive() -> None:
    # 0.9·ln(0.9/1e-4) = 8.194 > 5; and 0.5·ln(0.5/0.9) + 0.01·ln(0.01/0.05) = −0.2939 − 0.0161: advantage +0.3100
    floored = FKLScalar().credit(step(), *with_top_two([0.9, 0.05], [1e-4, 0.05]), progress=0.0)
    assert own(floored.advantages) == pytest.approx([-5.0] * 4)
    positive = FKLScalar().credit(step(), *with_top_two([0.5, 0.01], [0.9, 0.05]), progress=0.0)
    assert own(positive.advantages) == pytest.approx([0.3100] * 4, abs=1e-4)


def test_jsd_row() -> None:
    # β = 0.5: π_M = 0.45, 0.25, 0.41, 0.30; ½·ln(π_M/π_S) = ½·ln 1.5, ½·ln 0.625, ½·ln 0.5125, 0
    credit = credit_of(JSD())
    assert own(credit.advantages) == pytest.approx([0.20273, -0.23500, -0.33423, 0.0], abs=1e-4)
    assert credit.divergence_weights.tolist() == [[0.0, 1.0, 1.0, 1.0, 1.0]]
    # first sum, teacher (0.75, 0.25), student (0.25, 0.75), mixture (0.5, 0.5): 0.5·(0.75·ln 1.5 + 0.25·ln 0.5) =
    # 0.06541
    value = credit.divergence(torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.25, 0.75]]).log())
    assert value.item() == pytest.approx(0.06541, abs=1e-5)


def test_jsd_reward_is_bounded_below() -> None:
    """(1−β)·log(1−β), however unlikely the teacher finds the token."""
    teacher, student = TokenSignal(torch.full((1, 5), -1e4)), TokenSignal(torch.full((1, 5), -0.1))
    credit = JSD(beta=0.25).credit(step(), teacher, student, progress=0.0)
    assert own(credit.advantages) == pytest.approx([0.75 * math.log(0.75)] * 4)


def test_fkl_outlier_is_tropd_without_prefixes() -> None:
    method = FKLOutlier()
    assert not method.needs_teacher_responses()
    assert method.prefix_lengths(0.0, torch.tensor([10, 40]), torch.tensor([0.5, 0.5])).tolist() == [0, 0]
    credit = credit_of(method)
    assert own(credit.advantages) == pytest.approx([0.6931, -1.3863, 0.0, 0.0], abs=1e-4)
    assert credit.divergence_weights.tolist() == [[0.0, 0.0, 0.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("method", "advantages"),
    [(TrOPDClip(), [0.6931, -1.3863, -1.3863, 0.0]), (TrOPDMask(threshold=-1.5), [0.6931, -1.3863, 0.0, 0.0])],
)
def test_static_rows_with_guidance(method: TrOPD, advantages: list[float]) -> None:
    credit = credit_of(method)
    assert own(credit.advantages) == pytest.approx(advantages, abs=1e-4)
    assert not credit.divergence_weights.any()
    assert credit.imitation_weights.tolist() == PREFIX_ONLY
    # α = 1/2 at half of the budget, as TrOPD
    assert method.needs_teacher_responses()
    assert method.prefix_lengths(0.5, torch.tensor([10, 40]), torch.zeros(2)).tolist() == [5, 20]


def test_tropd_scalar_prefix_turns_the_prefix_term_into_an_advantage() -> None:
    # β·(ln 0.25 − ln 0.50) = −0.001·0.6931 on the prefix token, the rest is TrOPD's
    credit, reference = credit_of(TrOPDScalarPrefix()), credit_of(TrOPD())
    assert credit.imitation_weights.tolist() == [[pytest.approx(-6.931e-4, abs=1e-7), 0.0, 0.0, 0.0, 0.0]]
    assert torch.equal(credit.advantages, reference.advantages)
    assert torch.equal(credit.divergence_weights, reference.divergence_weights)


def test_tropd_scalar_turns_the_outlier_term_into_an_advantage() -> None:
    # FKL_k = 0.4·ln 2 = 0.27726 on the one outlier
    credit = TrOPDScalar().credit(step(), *with_top_two([0.6, 0.2], [0.3, 0.4]), progress=0.0)
    assert own(credit.advantages) == pytest.approx([0.6931, -1.3863, -0.27726, 0.0], abs=1e-4)
    assert not credit.divergence_weights.any()
    assert credit.imitation_weights[0, 0].item() == pytest.approx(-6.931e-4, abs=1e-7)


def test_tropd_expected_uses_the_probability() -> None:
    # P·r = 0.6931, 0.25·−1.3863 = −0.34657, 0.025·−3.6889 = −0.09222, 0; 1 − P = 0, 0.75, 0.975, 0
    credit = credit_of(TrOPDExpected())
    assert own(credit.advantages) == pytest.approx([0.6931, -0.34657, -0.09222, 0.0], abs=1e-4)
    assert credit.divergence_weights.tolist() == [[0.0, 0.0, pytest.approx(0.75), pytest.approx(0.975), 0.0]]
    assert credit.imitation_weights.tolist() == PREFIX_ONLY


def test_random_gate_has_the_mean_rate_and_looks_at_nothing() -> None:
    # mean P_trust of the own tokens = (1 + 0.25 + 0.025 + 1)/4 = 0.56875; u below it is trusted, whatever r is
    credit = credit_of(RandomGate(), uniforms=[0.0, 0.57, 0.56, 0.1, 0.9])
    assert own(credit.advantages) == pytest.approx([0.0, -1.3863, -3.6889, 0.0], abs=1e-4)
    assert credit.divergence_weights.tolist() == [[0.0, 1.0, 0.0, 0.0, 1.0]]
    assert credit.imitation_weights.tolist() == PREFIX_ONLY


def test_aopd_gates_by_the_difference_of_probabilities_and_takes_the_mean_per_sequence() -> None:
    # row 1: differences 0.3, −0.3, −0.78, 0 (≤ 0: gated); row 2: one own token, ln(0.9/0.3) = 1.0986 5 own tokens / 2
    # sequences = 2.5: × 2.5/4 = 0.625 in row 1, × 2.5/1 in row 2; a row without own tokens is no sequence
    teacher = torch.tensor([TEACHER, [0.9, 0.5, 0.5, 0.5, 0.5], [0.5] * 5])
    student = torch.tensor([STUDENT, [0.3, 0.5, 0.5, 0.5, 0.5], [0.5] * 5])
    mask = torch.tensor([OWN, [True] + [False] * 4, [False] * 5])
    none = torch.zeros(3, 5)
    batch = TokenBatch(none.long(), mask, torch.zeros_like(mask), student.log(), none)
    credit = AOPD().credit(batch, TokenSignal(teacher.log()), TokenSignal(student.log()), progress=0.0)
    assert own(credit.advantages) == pytest.approx([0.625 * 0.6931, 0.0, 0.0, 0.0], abs=1e-4)
    assert own(credit.divergence_weights) == pytest.approx([0.0, 0.625, 0.625, 0.625])
    assert credit.advantages[1, 0].item() == pytest.approx(2.5 * 1.0986, abs=1e-3)
    assert credit.metrics["gated_frac"] == pytest.approx(3 / 5)
    # divided by the 5 own tokens: each sequence has weight 1/2, each token 1/(2·|y|)
    assert compute_coefficients(credit, batch).divergence[0, 2].item() == pytest.approx(1 / (2 * 4))


def test_tropd_aopd_adds_forward_kl_on_trusted_tokens_once() -> None:
    # G = 0, 1, 1, 1 and M = 1, 1, 0, 1: weights (1−M) + G·M = 0, 1, 1, 1; advantages stay TrOPD's
    credit = credit_of(TrOPDAOPD())
    assert credit.divergence_weights.tolist() == [[0.0, 0.0, 1.0, 1.0, 1.0]]
    assert own(credit.advantages) == pytest.approx([0.6931, -1.3863, 0.0, 0.0], abs=1e-4)
    assert credit.imitation_weights.tolist() == PREFIX_ONLY


def test_gkd_weighs_every_token_of_either_origin() -> None:
    method = GKD(student_share=0.25)
    assert [method.writer(0.0, u) for u in (0.0, 0.2499, 0.25, 0.999)] == [
        "student",
        "student",
        "reference",
        "reference",
    ]
    assert GKD(student_share=1.0).writer(0.0, 0.999) == "student"
    assert method.request(0.0).full_vocabulary
    credit = credit_of(method)
    assert credit.divergence_weights.tolist() == [[1.0] * 5]
    # JSD of (0.75, 0.25) and (0.25, 0.75) at β = 0.5: 0.13081
    value = credit.divergence(torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.25, 0.75]]).log())
    assert value.item() == pytest.approx(0.13081, abs=1e-5)
    # on a step that the data set wrote, each of its 5 tokens gets 1/5
    reference = step(own=[False] * 5)
    assert compute_coefficients(credit, reference).divergence.tolist() == [[pytest.approx(0.2)] * 5]


@pytest.mark.parametrize(("method", "writer"), [(SeqKD(), "teacher"), (SFT(), "reference")])
def test_likelihood_on_text_of_others(method: Method, writer: str) -> None:
    assert method.writer(0.7, 0.0) == writer
    assert method.needs_teacher_responses() == (writer == "teacher")
    credit = credit_of(method, own=[False] * 5)
    assert credit.imitation_weights.tolist() == [[1.0] * 5]
    assert not credit.advantages.any()
    assert not credit.divergence_weights.any()


def test_topd_mixes_before_the_ratio() -> None:
    # α = 0.5: log(½·e^r + ½) with e^r = 2, 0.25, 0.025, 1: ln 1.5, ln 0.625, ln 0.5125, 0
    credit = credit_of(TOPD(alpha=0.5))
    assert own(credit.advantages) == pytest.approx([0.40547, -0.47000, -0.66846, 0.0], abs=1e-4)
    far = TOPD(alpha=0.2).credit(step(), TokenSignal(torch.full((1, 5), -1e4)), signals()[1], progress=0.0)
    assert own(far.advantages) == pytest.approx([math.log(0.8)] * 4)  # the floor


def test_vopd_adds_the_states_reverse_kl() -> None:
    # student 0.3, 0.4, tail 0.3; teacher 0.6, 0.2, tail 0.2:
    # 0.3·ln 0.5 + 0.4·ln 2 + 0.3·ln 1.5 = −0.20794 + 0.27726 + 0.12164 = 0.19096
    method = VOPD()
    credit = method.credit(step(), *with_top_two([0.6, 0.2], [0.3, 0.4]), progress=0.0)
    expected = [r + 0.19096 for r in (0.69315, -1.38629, -3.68888, 0.0)]
    assert own(credit.advantages) == pytest.approx(expected, abs=1e-4)
    assert method.request(0.0).student_at_topk


def test_additive_trust_keeps_the_penalty_and_adds_the_suggestion() -> None:
    # max(r, −2): the third is floored; 1 − P = 0, 0.75, 0.975, 0; no imitation
    credit = credit_of(AdditiveTrust(floor=-2.0))
    assert own(credit.advantages) == pytest.approx([0.6931, -1.3863, -2.0, 0.0], abs=1e-4)
    assert credit.divergence_weights.tolist() == [[0.0, 0.0, pytest.approx(0.75), pytest.approx(0.975), 0.0]]
    assert not credit.imitation_weights.any()
    assert AdditiveTrust().floor == -5.0


def test_fixed_negative_only_tells_the_sign() -> None:
    assert own(credit_of(FixedNegative()).advantages) == [0.0, -1.0, -1.0, 0.0]  # r = 0 is not negative


# Two rollouts; r by construction. The first has a prefix token with r = −9, which is no outlier of the student's.
STOP_R = torch.tensor([[-9.0, 1.0, -6.0, 2.0, -7.0], [-4.9, -5.0, 0.5, -5.1, 3.0]])
STOP_OWN = torch.tensor([[False, True, True, True, True], [True, True, True, True, True]])
LEARNED = torch.tensor([[True, True, True, False, False], [True, True, True, True, False]])  # −5.0 is not below −5


@pytest.mark.parametrize(
    ("method", "base"),
    [(FKLStop(), FKLDirect()), (TrOPDStop(), TrOPD()), (AdditiveTrustStop(), AdditiveTrust())],
    ids=lambda m: type(m).__name__,
)
def test_nothing_is_learned_after_the_first_hard_outlier(method: Method, base: Method) -> None:
    student = torch.full((2, 5), -0.5)
    uniforms = torch.tensor([[0.5] * 5, [0.001] * 5])
    batch = TokenBatch(torch.zeros(2, 5).long(), STOP_OWN, ~STOP_OWN, student, uniforms)
    sides = TokenSignal(student + STOP_R), TokenSignal(student)
    credit, whole = method.credit(batch, *sides, progress=0.0), base.credit(batch, *sides, progress=0.0)
    for name in ("advantages", "divergence_weights", "imitation_weights"):
        expected = torch.where(LEARNED, getattr(whole, name), torch.zeros(2, 5))
        assert torch.equal(getattr(credit, name), expected), name
    assert credit.metrics["stopped_frac"] == pytest.approx(3 / 9)


def test_a_random_stop_is_where_another_rollout_has_its_first_hard_outlier() -> None:
    """By the other one's outliers: the first row stops behind its fourth token, the second behind its third."""
    own = torch.ones(2, 5).bool()
    student = torch.full((2, 5), -0.5)
    batch = TokenBatch(torch.zeros(2, 5).long(), own, ~own, student, torch.tensor([[0.5] * 5, [0.001] * 5]))
    reward = torch.tensor([[1.0, 1.0, -6.0, 2.0, -7.0], [-4.9, -5.0, 0.5, -5.1, 3.0]])
    sides = TokenSignal(student + reward), TokenSignal(student)
    credit, whole = RandomStop().credit(batch, *sides, progress=0.0), TrOPD().credit(batch, *sides, progress=0.0)
    learned = torch.tensor([[True, True, True, True, False], [True, True, True, False, False]])
    for name in ("advantages", "divergence_weights", "imitation_weights"):
        expected = torch.where(learned, getattr(whole, name), torch.zeros(2, 5))
        assert torch.equal(getattr(credit, name), expected), name
    assert credit.metrics["stopped_frac"] == pytest.approx(3 / 10)


@pytest.mark.parametrize(
    ("method", "base"), [(FKLStop(-math.inf), FKLDirect()), (AdditiveTrust(-math.inf), OPD()), (AOPD(-1.1), OPD())]
)
def test_knob_off_equals_the_base(method: Method, base: Method) -> None:
    credit, reference = credit_of(method), credit_of(base)
    assert torch.equal(credit.advantages[0, 1:], reference.advantages[0, 1:])
    if not isinstance(method, AdditiveTrust):
        assert torch.equal(credit.divergence_weights, reference.divergence_weights)


@pytest.mark.parametrize(
    "build", [lambda: JSD(beta=1.0), lambda: GKD(beta=0.0), lambda: GKD(student_share=1.5), lambda: TOPD(alpha=1.0)]
)
def test_knobs_out_of_range_are_refused(build) -> None:
    with pytest.raises(ValueError, match="between"):
        build()
