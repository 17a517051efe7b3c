"""The K1 credit kept on every token, the forward KL added where trust is low."""

from dataclasses import dataclass

import torch

from harness.types import Method, TokenBatch, TokenCredit, TokenSignal


@dataclass(frozen=True)
class AdditiveTrust(Method):
    """Additive trust: the floored K1 credit on every token, plus the forward KL weighted by distrust.

    A method of ours; TrOPD's gate (arXiv 2606.01249) in the additive form of EOPD (arXiv 2603.07079).

        A_t = max(r, floor),   r = log π_T(x) − log π_S(x)
        divergence weight = 1 − P_trust,   P_trust = sg[min(π_T(x)/π_S(x), 1)]

    TrOPD's mask takes the penalty of a bad token away where it adds the teacher's suggestion; here the token keeps
    both. No draw, no prefixes.
    """

    floor: float = -5.0  # smallest reward, nats; ours

    def credit(self, batch: TokenBatch, teacher: TokenSignal, student: TokenSignal, progress: float) -> TokenCredit:
        """advantage = max(r, floor); divergence_weight = 1 − P_trust."""
        reward = teacher.logprobs - student.logprobs
        distrust = -torch.expm1(reward.clamp_max(0))  # 1 − min(e^r, 1), exact near 0
        return TokenCredit(
            advantages=reward.clamp_min(self.floor),
            divergence_weights=distrust * batch.on_policy_mask,
            imitation_weights=torch.zeros_like(reward),
        )


METHOD = AdditiveTrust
