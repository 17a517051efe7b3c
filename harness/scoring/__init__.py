"""Scorers: whatever reads log-probs of given completions out of a model; the same interface for teacher and student.

`Scorer` is the whole interface; `hf.HFScorer` is the default.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from harness.numerics.loss import TeacherRows
from harness.numerics.padding import padded
from harness.types import TokenSignal


@dataclass(frozen=True)
class Completion:
    """What is to be scored: a completion after its prompt."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]


@dataclass(frozen=True)
class ScoreRequest:
    """What to read beyond the log-probs of the completion tokens."""

    top_k: int = 0  # ids and log-probs of this model's top k; 0 for none
    entropy: bool = False
    at_ids: Tensor | None = None  # [B, T, K] long: log-probs at these ids instead of the model's own top k
    # end tokens whose common log-prob is wanted at every position; a scorer may leave it out
    stop_ids: tuple[int, ...] = ()


class Scored(Protocol):
    """The answer; `support` may be asked for afterwards, for a few positions only."""

    signal: TokenSignal

    def support(self, mask: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
        """The model's top k at the positions of mask [B, T]: ids [R, K] and log-probs [R, K], in row-major order of the
        mask.
        """
        ...


@runtime_checkable
class WholeScored(Scored, Protocol):
    """An answer whose whole distributions can be made again position by position, without being stored."""

    def whole(self, mask: Tensor) -> TeacherRows:
        """What the distributions at the R positions of mask [B, T] are made from, in row-major order."""
        ...


class Scorer(Protocol):
    """Scores completions under one model."""

    def score(self, completions: Sequence[Completion], request: ScoreRequest) -> Scored:
        """Log-probs [B, T] (right-padded with 0) of every completion token, and what else was asked for."""
        ...


def pad_completions(completions: Sequence[Completion]) -> tuple[Tensor, Tensor]:
    """The mask [B, T] and the labels [B, T] of right-padded completions."""
    lengths = torch.tensor([len(c.completion_ids) for c in completions])
    labels = padded([c.completion_ids for c in completions])
    return torch.arange(labels.shape[1]) < lengths[:, None], labels
