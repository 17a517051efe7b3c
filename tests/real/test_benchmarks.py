"""Slices of three benchmarks, decoded greedily from real weights: every token is generate's, every verdict as recorded.

`python -m tests.real.test_benchmarks MODEL_FOLDER` writes recorded.json anew (after a change of the prompts, or of the
model); a changed grader must not need it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.evaluation.driver import TaskResult
from harness.models.loading import load_model, load_tokenizer, stop_ids_of
from harness.rollout import RolloutRequest
from harness.rollout.hf import HFEngine
from harness.types import Rollout
from tests.evaluation.scoring import scored

DATA = os.environ.get("BENCHMARK_DATA")
RECORDED = Path(__file__).parent / "recorded.json"
SLICES = {"gsm8k": (4, 160), "ifbench": (10, 64), "mmlu_redux": (24, 12)}  # task -> problems, tokens

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(DATA is None, reason="BENCHMARK_DATA does not name a folder with the real sets"),
]


@dataclass
class Watched:
    """An engine that remembers what it was asked and what it wrote."""

    engine: HFEngine
    seen: list[tuple[RolloutRequest, Rollout]] = field(default_factory=list)

    def generate(self, requests: Sequence[RolloutRequest], *given: Any, **named: Any) -> list[Rollout]:
        written = self.engine.generate(requests, *given, **named)
        self.seen += zip(requests, written, strict=True)
        return written

    @property
    def policy_version(self) -> int:
        return self.engine.policy_version


def score_slice(folder: str, task: str) -> tuple[Watched, TaskResult]:
    """Scores the first problems of a task greedily."""
    model, tokenizer = load_model(folder, dtype="float32"), load_tokenizer(folder)
    problems, tokens = SLICES[task]
    watched = Watched(HFEngine(model, model.config.vocab_size))
    greedy = {"do_sample": False, "temperature": 0.0, "max_gen_toks": tokens}
    (result,) = scored(watched, tokenizer, [task], limit=problems, samples=1, generation=greedy, data_dir=DATA)
    return watched, result


def verdicts(result: TaskResult) -> dict[str, list[Any]]:
    """Problem -> what was extracted, and whether it counted."""
    extracted = {text["item_id"]: text["extracted"] for text in result.texts}
    return {item.item_id: [extracted[item.item_id], item.correct] for item in result.items}


@pytest.mark.parametrize("task", SLICES)
def test_a_slice(smollm2, task: str) -> None:
    watched, result = score_slice(smollm2, task)
    problems, tokens = SLICES[task]
    assert len(watched.seen) == problems
    model = watched.engine.model
    stop_ids = list(stop_ids_of(model, load_tokenizer(smollm2)))
    for request, rollout in watched.seen:
        ids = torch.tensor([request.prompt_ids])
        with torch.no_grad():
            whole = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=tokens,
                eos_token_id=stop_ids,
            )
        assert list(rollout.completion_ids) == whole[0, ids.shape[1] :].tolist()
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert json.loads(json.dumps(verdicts(result))) == recorded[task]


if __name__ == "__main__":
    found = {task: verdicts(score_slice(sys.argv[1], task)[1]) for task in SLICES}
    RECORDED.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
