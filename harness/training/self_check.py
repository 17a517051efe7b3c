"""Start-up checks of a rollout engine against the trainer."""

from __future__ import annotations

import sys

import torch

from harness.errors import UserError
from harness.rollout import RolloutRequest, Sampling
from harness.rollout.vllm import Backend
from harness.rollout.worker import vocabulary_digest
from harness.scoring import Completion, ScoreRequest
from harness.seeds import seed_of
from harness.training.loaded import Models
from harness.training.trainer import Machinery

MISMATCH_LIMIT = {
    "float64": 1e-6,
    "float32": 1e-3,
    "bfloat16": 0.5,
}  # nats; engine against trainer on one fixed sequence


def check_engine(machinery: Machinery, dtype: str) -> float:
    """Start-up self-check: engine and trainer score one fixed sequence; returns the largest difference in log-prob, nats."""
    prompt = machinery.prompts[0]
    request = RolloutRequest(prompt.prompt_id, prompt.ids, seed_of("self_check"))
    rollout = machinery.engine.generate([request], Sampling(max_new_tokens=16))[0]
    scored = machinery.student_scorer.score([Completion(rollout.prompt_ids, rollout.completion_ids)], ScoreRequest())
    difference = (scored.signal.logprobs[0] - torch.tensor(rollout.logprobs)).abs().max().item()
    if not difference <= MISMATCH_LIMIT[dtype]:
        raise RuntimeError(
            f"rollout engine and trainer disagree by {difference:.3g} nats on one sequence, the limit is {MISMATCH_LIMIT[dtype]}"
        )
    return difference


def report_difference(machinery: Machinery, dtype: str, when: str) -> None:
    difference = check_engine(machinery, dtype)
    print(
        f"self-check {when}: engine and trainer differ by at most {difference:.2g} nats on one sequence (limit {MISMATCH_LIMIT[dtype]})",
        file=sys.stderr,
    )


def check_served(backend: Backend, models: Models, dtype: str) -> None:
    """Refuses an engine that serves something else than the trainer's student: another tokenizer, vocabulary, type or end tokens."""
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
