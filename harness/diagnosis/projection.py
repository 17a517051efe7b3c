"""Gradients of a model's parameters by groups, projected to a size that many of them can be kept in.

A group's gradient [n] becomes [WIDTH]: entry i is added to place i mod WIDTH with a random sign that is the same for
all gradients (a count sketch: Charikar, Chen, Farach-Colton, 2002). Inner products keep their expectation, and a cosine
is off by about 1/√WIDTH; a group that is no larger than WIDTH loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from harness.seeds import seed_of

WIDTH = 2**17  # places of a group; a cosine is off by some 0.003
GROUPS = {  # group -> parts of the names of its parameters, the first that matches
    "embedding": ("embed", "lm_head", "wte", "wpe"),
    "attention": ("attn", "attention"),
    "feed-forward": ("mlp", "feed_forward", "experts", "ffn"),
}
OTHER = "other"  # norms, mostly
ALL = "all"


def group_of(name: str) -> str:
    """The group of a parameter."""
    return next((group for group, parts in GROUPS.items() if any(part in name for part in parts)), OTHER)


@dataclass(frozen=True)
class Sketch:
    """A gradient: its exact norm, and its groups' projections."""

    norm: float
    groups: Mapping[str, Tensor]  # group -> [WIDTH] or its size

    def vector(self, group: str) -> Tensor:
        """A group's projection, or that of all parameters."""
        return torch.cat(list(self.groups.values())) if group == ALL else self.groups[group]


@dataclass
class Projection:
    """Of the trained parameters of one model."""

    parameters: Mapping[str, nn.Parameter]
    _signs: dict[str, Tensor] = field(default_factory=dict)  # by parameter, int8

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(seed_of("projection"))
        for name, parameter in self.parameters.items():
            bits = torch.randint(0, 2, (parameter.numel(),), dtype=torch.int8, generator=generator)
            self._signs[name] = bits.mul_(2).sub_(1).to(parameter.device)

    def groups(self) -> list[str]:
        """The groups that the model has, in the order of GROUPS."""
        found = {group_of(name) for name in self.parameters}
        return [group for group in (*GROUPS, OTHER) if group in found]

    def project(self, gradients: Sequence[Tensor | None]) -> Sketch:
        """Of one gradient for each parameter; None is a gradient of zeros."""
        sizes = dict.fromkeys(self.groups(), 0)
        for name, parameter in self.parameters.items():
            sizes[group_of(name)] += parameter.numel()
        dtype = torch.promote_types(next(iter(self.parameters.values())).dtype, torch.float32)
        places = {group: torch.zeros(min(WIDTH, size), dtype=dtype) for group, size in sizes.items()}
        offsets = dict.fromkeys(sizes, 0)
        squares = 0.0
        for (name, parameter), gradient in zip(self.parameters.items(), gradients, strict=True):
            group, size = group_of(name), parameter.numel()
            if gradient is not None:
                flat = gradient.detach().flatten().to(dtype)
                squares += float(flat.square().sum(dtype=torch.float64))
                _add(places[group], flat * self._signs[name], offsets[group])
            offsets[group] += size
        return Sketch(squares**0.5, places)


def _add(places: Tensor, values: Tensor, offset: int) -> None:
    """Adds values [n] to places (offset + i) mod their number."""
    width, before = len(places), offset % len(places)
    padded = torch.nn.functional.pad(values, (before, -(before + len(values)) % width))
    places += padded.view(-1, width).sum(0).cpu()
