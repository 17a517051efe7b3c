"""Scores an engine on tasks by name, as the tests of graders and protocols want it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.evaluation.driver import TaskResult, evaluate
from harness.evaluation.loading import TaskOptions, load_tasks
from harness.evaluation.model import Drawing, EvaluatedModel


def scored(
    engine: Any, tokenizer: Any, names: Sequence[str], run_seed: int = 0, max_length: int = 2048, **options: Any
) -> list[TaskResult]:
    """The outcome of each task; `options` are those of TaskOptions, and keep_private_texts."""
    keep_private_texts = options.pop("keep_private_texts", False)
    tasks = load_tasks(names, tokenizer, TaskOptions(**options))
    return evaluate(model_of(engine, tokenizer, max_length), tasks, Drawing(run_seed), keep_private_texts)


def model_of(engine: Any, tokenizer: Any, max_length: int) -> EvaluatedModel:
    """A model behind an engine; its end token is the tokenizer's."""
    return EvaluatedModel(engine, tokenizer, max_length, stop_ids=(tokenizer.eos_token_id,))


def protocol_hashes(names: Sequence[str], tokenizer: Any, **options: Any) -> dict[str, str]:
    """The protocol hash of every task."""
    return {name: task.protocol_hash for name, task in load_tasks(names, tokenizer, TaskOptions(**options)).items()}
