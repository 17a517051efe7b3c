"""On-policy distillation with the sampled-token (K1) reverse-KL estimate."""

from dataclasses import dataclass

import torch

from harness.types import Method, TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class OPD(Method):
    """OPD: the policy gradient of the reverse KL, estimated on the sampled token.

    Thinking Machines, "On-Policy Distillation" (2025); row "OPD (RKL)" of TrOPD (arXiv 2606.01249).

        A_t = sg[log π_T(x_t|s_t) − log π_S(x_t|s_t)],   no discount, no baseline, no clipping

    No knobs.

    Other code: the Tinker cookbook takes the sampler's log-probs for π_S and does not clip; others clip: rLLM the
    advantage to ±5, LightRFT the log-ratio to ±20.

    Readings: K1 is an advantage, not a loss: back-propagated directly its expected gradient is E_{π_S}[∇ log π_S] = 0.

    Deviations: π_S is the trainer's own log-prob, not the sampler's.
    """

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = r, nothing else."""
        reward = teacher.logprobs - student.logprobs  # [B, T], nats
        zeros = torch.zeros_like(reward)
        return TokenCredit(advantages=reward, divergence_weights=zeros, imitation_weights=zeros)


METHOD = OPD
