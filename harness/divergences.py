"""Divergences between teacher and student on a set of tokens: pure functions of log-probs, with gradient.

Shape legend: N rows (token positions), K ids (the teacher's top k, or the whole vocabulary). Everything in nats and
in log space.
Both arguments are log-probs under the *full* softmax at the same ids: nothing is renormalised on the top k.
"""

from torch import Tensor


def topk_forward_kl(teacher_logprobs: Tensor, student_logprobs: Tensor) -> Tensor:
    """Truncated forward KL, Σ_v π_T(v)·(log π_T(v) − log π_S(v)) over the K given ids.

    TrOPD (arXiv 2606.01249), the outlier term of J^On; EOPD (arXiv 2603.07079), the additive term. Negative where
    the student puts more mass on the
    ids than the teacher does; deliberately not clamped, since a clamp would silence the gradient there. With m =
    Σ_v π_T(v) the gradient with
    respect to the student's logits z_j is m·π_S(j) − π_T(j)·1[j among the ids].

    Args:
        teacher_logprobs: [N, K], constant.
        student_logprobs: [N, K], carries the gradient.
    Returns:
        [N], nats.
    """
    if teacher_logprobs.shape != student_logprobs.shape or teacher_logprobs.dim() != 2:
        raise ValueError(
            f"expected two [N, K] tensors, got {tuple(teacher_logprobs.shape)} and {tuple(student_logprobs.shape)}"
        )
    teacher_logprobs = teacher_logprobs.detach()
    return (teacher_logprobs.exp() * (teacher_logprobs - student_logprobs)).sum(-1)
