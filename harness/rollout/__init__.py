"""Rollout engines: whatever turns prompts (and prefixes) into sampled completions.

`RolloutEngine` is the whole interface; `hf.HFEngine` is the default.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.types import Rollout


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn. Training is always at temperature 1 and top_p 1, so that a sample is one of the
    student's own distribution.
    """

    max_new_tokens: int  # tokens written by the model, the prefix not counted
    temperature: float = 1.0  # 0 means greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 means off
    stop_ids: tuple[int, ...] = ()  # end tokens; the one that is drawn belongs to the completion
    one_end: bool = False  # the end tokens count as one, which the first of them stands for: drawn and scored together
    record_stops: bool = False  # Rollout.stop_logprobs; by transformers alone

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The ids that count as one token (logprobs.Head)."""
        return self.stop_ids if self.one_end else ()


@dataclass(frozen=True)
class RolloutRequest:
    """One completion to be sampled."""

    prompt_id: str
    prompt_ids: tuple[int, ...]
    seed: int  # of this completion alone (harness.seeds): the result does not depend on what else is in the batch
    sample_index: int = 0
    prefix_ids: tuple[int, ...] = ()  # spliced in as the beginning of the completion


Progress = Callable[[int], None]  # called with the number of tokens written since the last call
Finished = Callable[[int, Rollout], None]  # called with a request's index and its completion as soon as that is done


class RolloutEngine(Protocol):
    """Samples completions from the current weights of one model."""

    policy_version: int

    def generate(
        self,
        requests: Sequence[RolloutRequest],
        sampling: Sampling,
        progress: Progress | None = None,
        finished: Finished | None = None,
    ) -> list[Rollout]:
        """Samples one completion for every request, in the order of the requests."""
        ...
