"""What an evaluation is of, and how its samples are drawn and shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.evaluation.journal import SampleJournal
from harness.rollout import Progress, RolloutEngine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class EvaluatedModel:
    """A model that is ready to be scored."""

    engine: RolloutEngine
    tokenizer: PreTrainedTokenizerBase
    max_length: int  # positions of the model, prompt and completion together; a prompt is never shortened
    stop_ids: tuple[int, ...]  # end tokens
    opened_for: int = 2**31  # positions that the engine takes, where that is fewer than the model's


@dataclass(frozen=True)
class Drawing:
    """How the samples of an evaluation are drawn, and who hears of it."""

    # of the run that made the model; with task, problem and repeat it decides every sample. The method is no
    # coordinate, so that methods are compared on the same random numbers.
    run_seed: int
    # samples that are in it are not generated again, and finished ones are added to it
    journal: SampleJournal | None = None
    quiet: bool = True  # no progress bars (nor are there any where stderr is not a terminal)
    progress: Progress | None = None  # called with the number of tokens written since the last call
