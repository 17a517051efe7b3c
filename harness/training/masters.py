"""AdamW on float32 copies of weights that are kept in a narrower type.

At a learning rate of 5e-6 most updates of a bfloat16 weight are below half of its last place: added to the weight
itself they are rounded away. So the optimiser holds every weight in float32 (its *master*), updates that, and writes it
back rounded. The model computes in its own type, as rollouts and teacher do.

The libraries at hand do this for sharded models alone (FSDP2's mixed precision, DeepSpeed's BF16 optimiser) or by
autocast, which would compute the update with other weights than those that sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Numbers whose gradients exist in float32 at the same time: 1 GiB of them, however large the model.
BUCKET_NUMBERS = 2**28
NARROW = (torch.bfloat16, torch.float16)


class MasterAdamW(torch.optim.Optimizer):
    """AdamW for narrow weights: `param_groups` are the model's own parameters, moments and masters are float32.

    Args are those of torch.optim.AdamW. After a step every parameter is its master, rounded to nearest.
    """

    def __init__(self, params: Iterable[Any], **adamw: Any) -> None:
        super().__init__(params, dict(adamw))
        # (param group, its parameters, AdamW of their masters)
        self.buckets: list[tuple[int, list[Tensor], torch.optim.AdamW]] = []
        for index, group in enumerate(self.param_groups):
            options = {key: value for key, value in group.items() if key != "params"}
            for weights in _buckets(group["params"]):
                masters = [weight.detach().float().clone() for weight in weights]
                self.buckets.append((index, weights, torch.optim.AdamW([{**options, "params": masters}])))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update, bucket by bucket; a weight without a gradient stays."""
        loss = closure() if closure is not None else None
        for index, weights, inner in self.buckets:
            (own,) = inner.param_groups
            given = self.param_groups[index]  # with the rate that a schedule has set
            own |= {key: value for key, value in given.items() if key != "params"}
            for weight, master in zip(weights, own["params"], strict=True):
                master.grad = None if weight.grad is None else weight.grad.float()
            inner.step()
            for weight, master in zip(weights, own["params"], strict=True):
                weight.copy_(master)
                master.grad = None
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Masters and moments, float32, beside the groups."""
        inner = [
            {"masters": adamw.param_groups[0]["params"], "adamw": adamw.state_dict()} for _, _, adamw in self.buckets
        ]
        return {**super().state_dict(), "buckets": inner}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up masters and moments as they were saved; the model's weights become the masters, rounded."""
        state = dict(state_dict)
        saved = state.pop("buckets")
        super().load_state_dict(state)
        for (_, weights, adamw), bucket in zip(self.buckets, saved, strict=True):
            adamw.load_state_dict(bucket["adamw"])
            for weight, master, value in zip(weights, adamw.param_groups[0]["params"], bucket["masters"], strict=True):
                master.copy_(value)
                weight.copy_(master)


def needs_masters(parameters: Iterable[Tensor]) -> bool:
    """Whether any trained parameter is of a type in which small updates are lost."""
    return any(p.requires_grad and p.dtype in NARROW for p in parameters)


def _buckets(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    """Consecutive parameters of at most BUCKET_NUMBERS numbers together; a larger one is alone."""
    buckets: list[list[Tensor]] = []
    room = 0
    for parameter in parameters:
        if not buckets or parameter.numel() > room:
            buckets.append([])
            room = BUCKET_NUMBERS
        buckets[-1].append(parameter)
        room -= parameter.numel()
    return buckets
