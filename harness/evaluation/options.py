"""What an EvaluationConfig says of each task, checked: a mistake is a UserError that names the mistyped key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from harness.config.decodings import DECODINGS
from harness.config.entries import ALL, NUMBERS, for_task
from harness.config.settings import EvaluationConfig
from harness.errors import UserError
from harness.evaluation.loading import GENERATION_KEYS, TaskOptions, known_tasks, task_folders

NOT_NUMBERS = ("do_sample", "until")  # of GENERATION_KEYS


def options_of(evaluation: EvaluationConfig, task: str) -> list[TaskOptions]:
    """What the configuration changes of a task, for each of its decodings."""
    generation = {**evaluation.sampling.get(ALL, {}), **evaluation.sampling.get(task, {})}
    longest = for_task(evaluation.max_new_tokens, task)
    if longest is not None:
        generation["max_gen_toks"] = longest
    own = TaskOptions(
        samples=for_task(evaluation.samples, task),
        data_dir=evaluation.data_dir,
        limit=evaluation.limit if task in evaluation.tasks else None,  # a curve is of all development problems
        generation=generation or None,
        grader=evaluation.grader,
        metadata=evaluation.metadata.get(task),
    )
    return [
        dataclasses.replace(own, decoding=name, samples=DECODINGS[name].samples or own.samples)
        for name in evaluation.decodings_of(task)
    ] or [own]


def check_options(evaluation: EvaluationConfig) -> None:
    """A UserError for a task that does not exist or an option that is none; reads no data."""
    task_folders(evaluation.tasks)
    if evaluation.limit is not None and evaluation.limit < 1:
        raise UserError(f"limit={evaluation.limit}: must be at least 1, or null for all problems.")
    for field in (*NUMBERS, "sampling", "metadata", "decodings"):
        for task, value in getattr(evaluation, field).items():
            key = f"evaluation.{field}.{task}"
            if task not in known_tasks() and (task != ALL or field == "metadata"):
                raise UserError(f"{key}: there is no such task; known: {', '.join(known_tasks())}.")
            if field in NUMBERS:
                if value < 1:
                    raise UserError(f"{key}={value}: must be at least 1.")
            elif field == "sampling":
                _check_sampling(value, key)
    for task in evaluation.tasks:
        options_of(evaluation, task)


def _check_sampling(values: Mapping[str, Any], where: str) -> None:
    for key, value in values.items():
        if key not in GENERATION_KEYS:
            raise UserError(f"{where}.{key}: there is no such setting; known: {', '.join(sorted(GENERATION_KEYS))}.")
        if key not in NOT_NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UserError(f"{where}.{key}={value!r}: must be a number.")
