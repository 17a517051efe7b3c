"""Finds and builds lm-eval tasks, and computes the hash of the protocol that a task stands for."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager
    from transformers import PreTrainedTokenizerBase

TASKS_DIR = Path(__file__).resolve().parents[2] / "tasks"


@dataclass(frozen=True)
class LoadedTask:
    """A task that is ready to run, and the hash of its protocol."""

    task: ConfigurableTask
    protocol_hash: str
    samples: int  # per problem


def load_task(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    samples: int | None,
    data_dir: str | None,
    limit: int | None,
    tasks_dir: Path,
) -> LoadedTask:
    """Builds the task `name` with `samples` per problem (None: as many as its file says)."""
    from lm_eval.tasks._yaml_loader import load_yaml

    tasks_dir = tasks_dir.resolve()
    manager = _manager(tasks_dir)
    if name not in manager.all_subtasks:
        raise UserError(f"Unknown task {name!r}; known: {', '.join(manager.all_subtasks)}.")
    entry = manager.task_index[name]
    named = _with_samples(load_yaml(_path(entry.yaml_path), resolve_func=False), samples)
    config = _with_samples(load_yaml(_path(entry.yaml_path)), samples)
    config["metadata"] = {**config.get("metadata", {}), "data_dir": data_dir}
    with unobtrusive_lm_eval(logging.ERROR):
        task = manager.load([config])["tasks"][name]
    documents = list(task.eval_docs)[:limit]
    protocol = {
        "config": _relative(named, tasks_dir),
        "documents": _digest(documents),
        "chat_template": tokenizer.chat_template,
    }
    return LoadedTask(task, _digest(protocol), int(config.get("repeats", 1)))


@contextlib.contextmanager
def unobtrusive_lm_eval(level: int = logging.WARNING) -> Iterator[None]:
    """lm-eval logs at INFO, draws a bar while it builds prompts, and draws names of tasks from the global `random`.

    An evaluation in the middle of a training must do none of it.
    """
    import lm_eval.api.task as task_module

    logger = logging.getLogger("lm_eval")
    before, bar, random_state = logger.level, task_module.tqdm, random.getstate()
    logger.setLevel(level)
    task_module.tqdm = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        logger.setLevel(before)
        task_module.tqdm = bar
        random.setstate(random_state)


@functools.lru_cache
def _manager(tasks_dir: Path) -> TaskManager:
    """The index of the task files: once per folder, it reads them all."""
    from lm_eval.tasks import TaskManager

    if not tasks_dir.is_dir():
        raise UserError(f"The folder of tasks {tasks_dir} does not exist.")
    return TaskManager(include_path=str(tasks_dir), include_defaults=False)


def _path(yaml_path: Path | None) -> Path:
    assert yaml_path is not None  # tasks come from files
    return yaml_path


def _with_samples(config: dict[str, Any], samples: int | None) -> dict[str, Any]:
    """Sets the number of samples where lm-eval wants it: how many are drawn, and how many the filter keeps."""
    if samples is None:
        return config
    filters = [
        {**pipeline, "filter": [_with_k(step, samples) for step in pipeline["filter"]]}
        for pipeline in config.get("filter_list", [])
    ]
    return {**config, "repeats": samples, "filter_list": filters}


def _with_k(step: dict[str, Any], samples: int) -> dict[str, Any]:
    return {**step, "k": samples} if step["function"] == "take_first_k" else step


def _relative(value: Any, tasks_dir: Path) -> Any:
    """Functions stand here as `<folder>/<module>.<name>`; where the checkout lies is not part of a protocol."""
    if isinstance(value, dict):
        return {key: _relative(entry, tasks_dir) for key, entry in value.items()}
    if isinstance(value, list):
        return [_relative(entry, tasks_dir) for entry in value]
    return value.replace(f"{tasks_dir}/", "") if isinstance(value, str) else value


def _digest(content: Any) -> str:
    """sha256 of the content as canonical JSON."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def check_arguments(tasks: Sequence[str], samples: int | None, limit: int | None) -> None:
    """Refuses what cannot be evaluated before anything is loaded."""
    if isinstance(tasks, str) or len(set(tasks)) != len(tasks):
        raise UserError(f"evaluation.tasks must be a list of different task names, not {tasks!r}.")
    for key, value in (("samples", samples), ("limit", limit)):
        if value is not None and value < 1:
            raise UserError(f"evaluation.{key} must be at least 1, not {value}.")
