"""A null for rewards: how unlikely the teacher finds the token is ignored."""

from dataclasses import dataclass

import torch

from harness.types import Method, TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class FixedNegative(Method):
    """Fixed negative advantage: minus a constant wherever the teacher likes the token less than the student does.

    The null of "Does on-policy distillation really distill?", arXiv 2608.31046, in our form.

        A_t = −penalty·1[r < 0],   r = log π_T(x_t) − log π_S(x_t)

    The teacher says only where to push down.

    Deviations: the constant and the choice of tokens are ours; the paper's were not available.
    """

    penalty: float = 1.0  # nats; ours

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = −penalty where r < 0."""
        negative = teacher.logprobs < student.logprobs
        zeros = torch.zeros_like(teacher.logprobs)
        return TokenCredit(
            advantages=zeros - self.penalty * negative, divergence_weights=zeros, imitation_weights=zeros
        )


METHOD = FixedNegative
