"""SeqKD: fine-tuning on the teacher's own text."""

from dataclasses import dataclass

import torch

from harness.types import Method, SignalRequest, TokenBatch, TokenCredit, TokenSignal, Writer


@dataclass(frozen=True)
class SeqKD(Method):
    """SeqKD: negative log-likelihood on one response of the teacher per prompt.

    Kim & Rush, arXiv 1606.07947 (2016), with samples in place of beam search.

        L_t = −log π_S(x_t),   x ~ π_T

    The response is drawn once at temperature 1, cached, and trained on whole, its end token included. No knobs.

    Deviations: the paper takes the teacher's mode by beam search; a prompt has one completion, however many rollouts a
    prompt gets under other methods.
    """

    def needs_teacher_responses(self) -> bool:
        """The text is the cached responses."""
        return True

    def request(self, progress: float) -> SignalRequest:
        """No model's log-probs are read."""
        return SignalRequest(teacher=False, student=False)

    def writer(self, progress: float, uniform: float) -> Writer:
        """The teacher writes every step."""
        return "teacher"

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """imitation_weight = 1 on every token."""
        zeros = torch.zeros_like(teacher.logprobs)
        return TokenCredit(
            advantages=zeros, divergence_weights=zeros, imitation_weights=batch.prefix_mask.to(zeros.dtype)
        )


METHOD = SeqKD
