"""On-policy distillation with the sampled-token (K1) reverse-KL estimate."""

from dataclasses import dataclass

import torch

from harness.types import Method, TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class OPD(Method):
    """OPD: the policy gradient of the reverse KL, estimated on the sampled token.

    Thinking Machines, "On-Policy Distillation" (2025); row "OPD (RKL)" of TrOPD (arXiv 2606.01249).

        A_t = sg[log π_T(x_t|s_t) − log π_S(x_t|s_t)],   no discount, no baseline, no clipping

    K1 is an advantage, not a loss: back-propagated directly its expected gradient is E_{π_S}[∇ log π_S] = 0. No
    knobs. Deviation: public
    implementations clip the log-ratio somewhere between ±5 and ±20; this baseline is not clipped.
    """

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = r, nothing else."""
        reward = teacher.logprobs - student.logprobs  # [B, T], nats
        zeros = torch.zeros_like(reward)
        return TokenCredit(advantages=reward, divergence_weights=zeros, imitation_weights=zeros)


METHOD = OPD
