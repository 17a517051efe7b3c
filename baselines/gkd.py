"""GKD: a full-vocabulary Jensen-Shannon divergence on the data set's text and on the student's own."""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.divergences import jensen_shannon
from harness.types import Method, SignalRequest, TokenBatch, TokenCredit, TokenSignal, Writer


@dataclass(frozen=True)
class GKD(Method):
    """GKD: the Jensen-Shannon divergence over the whole vocabulary, on a mixture of fixed and own text.

    Agarwal et al., arXiv 2306.13649, Algorithm 1 and Eq. 1.

        L = (1−λ)·E_{(x,y)~data}[D(π_T, π_S)] + λ·E_{y~π_S}[D(π_T, π_S)],   D = β·KL(π_T ‖ M) + (1−β)·KL(π_S ‖ M)
        M = β·π_T + (1−β)·π_S

    Who writes is drawn once a step: the student with probability λ, else the data set. Back-propagated directly;
    nothing flows through the sampling. Needs prompts with a reference response unless λ = 1.

    Other code: TRL's GKDTrainer, λ = β = 0.5 unless told otherwise.

    Readings: of the paper's many (λ, β) the defaults are TRL's, the middle of both ranges.

    Deviations: the mean is over tokens of the step, not over sequences.
    """

    student_share: float = 0.5  # λ, probability that the student writes the step; TRL's default
    beta: float = 0.5  # the teacher's share in the mixture, in (0, 1); TRL's default

    def __post_init__(self) -> None:
        if not 0 < self.beta < 1:
            raise ValueError(f"beta must lie strictly between 0 and 1, not {self.beta}")
        if not 0 <= self.student_share <= 1:
            raise ValueError(f"student_share must lie between 0 and 1, not {self.student_share}")

    def request(self, progress: float) -> SignalRequest:
        """The support is the whole shared vocabulary; no sampled token's log-prob is read."""
        return SignalRequest(full_vocabulary=True, student=False)

    def writer(self, progress: float, uniform: float) -> Writer:
        """The student with probability λ, else the data set's own responses."""
        return "student" if uniform < self.student_share else "reference"

    def jsd(self, teacher_logprobs: Tensor, student_logprobs: Tensor) -> Tensor:
        """D, [N]."""
        return jensen_shannon(teacher_logprobs, student_logprobs, self.beta)

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """divergence_weight = 1 on every token, whoever wrote it."""
        zeros = torch.zeros_like(teacher.logprobs)
        every_token = (batch.on_policy_mask | batch.prefix_mask).to(zeros.dtype)
        return TokenCredit(
            advantages=zeros, divergence_weights=every_token, imitation_weights=zeros, divergence=self.jsd
        )


METHOD = GKD
