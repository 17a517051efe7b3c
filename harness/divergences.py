"""Divergences between teacher and student on a set of tokens: pure functions of log-probs, with gradient.

Shape legend: N rows (token positions), K ids (the teacher's top k, or the whole vocabulary). Everything in nats and in
log space. Both arguments are log-probs under the *full* softmax at the same ids: nothing is renormalised on the top k.
Log-probs are finite, which a log-softmax in float32 of finite logits ensures.
"""

import math

import torch
from torch import Tensor

HARD_OUTLIER = -5.0  # nats of log π_T − log π_S; below it the teacher all but excludes the token (ours)


def topk_forward_kl(teacher_logprobs: Tensor, student_logprobs: Tensor) -> Tensor:
    """Truncated forward KL, Σ_v π_T(v)·(log π_T(v) − log π_S(v)) over the K given ids.

    TrOPD (arXiv 2606.01249), the outlier term of J^On; EOPD (arXiv 2603.07079), the additive term. Negative where the
    student puts more mass on the ids than the teacher does; deliberately not clamped, since a clamp would silence the
    gradient there. With m = Σ_v π_T(v) the gradient with respect to the student's logits z_j is m·π_S(j) − π_T(j)·1[j
    among the ids].

    Args:
        teacher_logprobs: [N, K], constant.
        student_logprobs: [N, K], carries the gradient.
    Returns:
        [N], nats.
    """
    teacher_logprobs = _checked(teacher_logprobs, student_logprobs)
    return (teacher_logprobs.exp() * (teacher_logprobs - student_logprobs)).sum(-1)


def log_mixture(teacher_logprobs: Tensor, student_logprobs: Tensor, teacher_share: float) -> Tensor:
    """log(w·π_T + (1−w)·π_S), elementwise and in log space, for w = teacher_share in (0, 1). Any shape; nats."""
    if not 0 < teacher_share < 1:
        raise ValueError(f"teacher_share must lie strictly between 0 and 1, not {teacher_share}")
    return torch.logaddexp(teacher_logprobs + math.log(teacher_share), student_logprobs + math.log1p(-teacher_share))


def teacher_to_mixture_kl(teacher_logprobs: Tensor, student_logprobs: Tensor, beta: float) -> Tensor:
    """KL(π_T ‖ M) over the K given ids, M = β·π_T + (1−β)·π_S: the first sum of a Jensen-Shannon divergence.

    TrOPD (arXiv 2606.01249), row "JSD" of Table 1, without its factor β. Bounded above by −log β; on a truncated
    support it may be negative, as topk_forward_kl may.

    Args:
        teacher_logprobs: [N, K], constant. student_logprobs: [N, K], carries the gradient. beta: in (0, 1).
    Returns:
        [N], nats.
    """
    teacher_logprobs = _checked(teacher_logprobs, student_logprobs)
    return topk_forward_kl(teacher_logprobs, log_mixture(teacher_logprobs, student_logprobs, beta))


def jensen_shannon(teacher_logprobs: Tensor, student_logprobs: Tensor, beta: float) -> Tensor:
    """Generalised Jensen-Shannon divergence, β·KL(π_T ‖ M) + (1−β)·KL(π_S ‖ M), M = β·π_T + (1−β)·π_S.

    GKD (arXiv 2306.13649), Eq. 1. A divergence (≥ 0, and 0 only where the two agree) if the K ids are the whole
    vocabulary; at most log 2 at β = 0.5. Divided by β it tends to the forward KL as β → 0, divided by 1−β to the
    reverse KL as β → 1. Gradient with respect to the student's logits z_j: (1−β)·π_S(j)·(log(π_S(j)/M(j)) − KL(π_S ‖
    M)).

    Args:
        teacher_logprobs: [N, K], constant. student_logprobs: [N, K], carries the gradient. beta: in (0, 1).
    Returns:
        [N], nats.
    """
    teacher_logprobs = _checked(teacher_logprobs, student_logprobs)
    log_m = log_mixture(teacher_logprobs, student_logprobs, beta)
    student_part = (student_logprobs.exp() * (student_logprobs - log_m)).sum(-1)
    return beta * topk_forward_kl(teacher_logprobs, log_m) + (1 - beta) * student_part


def exact_reverse_kl(teacher_logprobs: Tensor, student_logprobs: Tensor) -> Tensor:
    """Reverse KL, Σ_v π_S(v)·(log π_S(v) − log π_T(v)), of two distributions given on all of their K atoms.

    What the K1 estimate of on-policy distillation estimates, without the sampling. The gradient runs through both
    factors: with respect to the student's logits z_j it is π_S(j)·(log(π_S(j)/π_T(j)) − KL).

    Args:
        teacher_logprobs: [N, K], constant. student_logprobs: [N, K], carries the gradient.
    Returns:
        [N], nats, >= 0 if the K atoms are complete (whole vocabulary, or see with_tail).
    """
    teacher_logprobs = _checked(teacher_logprobs, student_logprobs)
    return (student_logprobs.exp() * (student_logprobs - teacher_logprobs)).sum(-1)


def with_tail(logprobs: Tensor) -> Tensor:
    """Appends one atom that holds the mass outside of the K ids, log(1 − Σ_v π(v)): [N, K] -> [N, K+1], nats.

    The tail's mass is at least the dtype's epsilon (1.2e-7 in float32): below it the sum is rounding, not mass, and the
    atom is a constant without gradient.
    """
    inside = logprobs.logsumexp(-1, keepdim=True).clamp_max(-torch.finfo(logprobs.dtype).eps)
    near_one = inside > -math.log(2)  # log(1 − e^x): each form where it is exact
    tail = torch.where(near_one, torch.log(-torch.expm1(inside)), torch.log1p(-inside.exp()))
    return torch.cat([logprobs, tail], dim=-1)


def tail_forward_kl(teacher_logprobs: Tensor, student_logprobs: Tensor) -> Tensor:
    """Forward KL over the K given ids and one atom for the rest of the vocabulary.

        Σ_v π_T(v)·log(π_T(v)/π_S(v)) + (1−m_T)·log((1−m_T)/(1−m_S)),   m = Σ_v π(v) over the K ids

    Tail-Aware OPD (arXiv 2608.14728) has the same atom in its reverse KL. A true KL on K+1 atoms: >= 0, and a lower
    bound of the full one.

    Args:
        teacher_logprobs: [N, K], constant. student_logprobs: [N, K], carries the gradient.
    Returns:
        [N], nats.
    """
    teacher_logprobs = _checked(teacher_logprobs, student_logprobs)
    return topk_forward_kl(with_tail(teacher_logprobs), with_tail(student_logprobs))


def _checked(teacher_logprobs: Tensor, student_logprobs: Tensor) -> Tensor:
    """The teacher's side without gradient, if the two shapes are one [N, K]."""
    if teacher_logprobs.shape != student_logprobs.shape or teacher_logprobs.dim() != 2:
        raise ValueError(
            f"expected two [N, K] tensors, got {tuple(teacher_logprobs.shape)} and {tuple(student_logprobs.shape)}"
        )
    return teacher_logprobs.detach()
