"""Start-up checks of a rollout engine against the trainer."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from harness.engines import group
from harness.errors import UserError
from harness.rollout import RolloutEngine, RolloutRequest, Sampling
from harness.rollout.vllm import Backend
from harness.rollout.worker import vocabulary_digest
from harness.scoring import Completion, Scorer, ScoreRequest
from harness.seeds import seed_of
from harness.training.loaded import Models
from harness.training.prompts import Prompt

# Engine against trainer on one fixed sequence, nats, by the type of the weights.
MISMATCH_LIMIT = {"float64": 1e-6, "float32": 1e-3, "bfloat16": 0.5}
WRITTEN_TOKENS = 16  # of the fixed sequence


@dataclass(frozen=True)
class SelfCheck:
    """One fixed sequence, written by the engine and scored by the trainer."""

    engine: RolloutEngine
    scorer: Scorer  # the trainer's, of the same model
    prompt: Prompt
    dtype: str
    end_ids: tuple[int, ...] = ()  # that count as one token for both

    def difference(self) -> float:
        """The largest difference in log-prob, nats; RuntimeError where it is beyond the limit."""
        request = RolloutRequest(self.prompt.prompt_id, self.prompt.ids, seed_of("self_check"))
        sampling = Sampling(WRITTEN_TOKENS, stop_ids=self.end_ids, one_end=bool(self.end_ids))
        rollout = self.engine.generate([request], sampling)[0]
        scored = self.scorer.score([Completion(rollout.prompt_ids, rollout.completion_ids)], ScoreRequest())
        difference = (scored.signal.logprobs[0] - torch.tensor(rollout.logprobs)).abs().max().item()
        limit = MISMATCH_LIMIT[self.dtype]
        if not difference <= limit:
            raise RuntimeError(
                f"rollout engine and trainer disagree by {difference:.3g} nats on one sequence, the limit is {limit}"
            )
        return difference

    def report(self, version: int) -> None:
        """The check after weights were pushed, said on stderr by the first of several ranks."""
        difference = self.difference()
        if group.index() == 0:
            print(
                f"self-check at version {version}: engine and trainer differ by at most {difference:.2g} nats on one "
                f"sequence (limit {MISMATCH_LIMIT[self.dtype]})",
                file=sys.stderr,
            )


def check_served(backend: Backend, models: Models, dtype: str) -> None:
    """Refuses an engine that serves something else than the trainer's student: another tokenizer, vocabulary, type or
    end tokens.
    """
    expected = {
        "tokenizer": vocabulary_digest(models.tokenizer),
        "vocab_size": models.student.config.get_text_config().vocab_size,
        "dtype": dtype,
        "stop_ids": list(models.stop_ids),
    }
    served = backend.tell("harness_describe")
    for key, value in expected.items():
        if served[key] != value:
            raise UserError(
                f"the engine serves another model than the student: its {key} is {served[key]}, the student's {value}."
            )
