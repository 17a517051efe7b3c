"""Finds and builds lm-eval tasks, and computes the hash of the protocol that a task stands for."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.decodings import DECODINGS, OWN
from harness.errors import UserError
from harness.models.private_names import LOAD_YAML
from harness.results.record import subset_name
from tasks.sample_metrics import GRADERS

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager
    from transformers import PreTrainedTokenizerBase

GENERATION_KEYS = {
    "until",
    "do_sample",
    "temperature",
    "top_p",
    "top_k",
    "max_gen_toks",
}  # of a task's generation_kwargs
GRADER = "grader"  # metadata of a task whose answers both graders grade: the one whose verdicts count
# metadata of a task that makes a document of every repeat of a problem, because their prompts differ: their number
REPEAT_DOCUMENTS = "repeat_documents"
DEFAULT_MAX_GEN_TOKS = 256  # lm-eval's, for tasks that do not say
PROMPT_ROOM = 8192  # positions that an engine is opened with beside those of the longest answer
_ANY_OTHER = inspect.Parameter.VAR_KEYWORD
TASKS_DIR = Path(__file__).resolve().parents[2] / "tasks"


@dataclass(frozen=True)
class LoadedTask:
    """A task that is ready to run under one decoding, and the hash of its protocol."""

    name: str
    task: ConfigurableTask
    protocol_hash: str
    samples: int  # per problem
    documents_per_problem: int = 1  # more where every repeat of a problem has a prompt of its own (REPEAT_DOCUMENTS)
    private: bool = False  # its texts are not written down (metadata `keep_texts_private`)
    limit: int | None = None  # the first problems only
    decoding: str = OWN  # of DECODINGS, or the task's own

    @property
    def max_new_tokens(self) -> int:
        """Tokens of an answer, at most."""
        return _answer_length(self.task.config.generation_kwargs)

    @property
    def label(self) -> str:
        """The name of its scores: a part of the problems is never taken for all of them."""
        documents = self.documents
        if documents is None or len(documents) == len(self.task.eval_docs):
            return self.name
        per_problem = self.documents_per_problem
        return subset_name(self.name, len(documents) // per_problem, len(self.task.eval_docs) // per_problem)

    @property
    def documents(self) -> list[int] | None:
        """The documents that are evaluated; None: all."""
        if self.limit is None:
            return None
        return list(range(min(self.limit * self.documents_per_problem, len(self.task.eval_docs))))


@dataclass(frozen=True)
class TaskOptions:
    """What a caller may change of the tasks as their files describe them."""

    samples: int | None = None  # per problem
    data_dir: str | None = None  # folder with <task>/test.jsonl, for tasks whose data are not beside them
    limit: int | None = None  # the first problems only
    generation: Mapping[str, Any] | None = None  # replaces entries of generation_kwargs
    decoding: str = OWN  # of DECODINGS: replaces their temperature, top-p and top-k
    grader: str = GRADERS[0]  # of tasks that have both; replaces metadata `grader`
    metadata: Mapping[str, Any] | None = None  # replaces what the task's loader is told
    tasks_dir: Path = TASKS_DIR

    def __post_init__(self) -> None:
        for key in ("samples", "limit"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise UserError(f"evaluation.{key} must be at least 1, not {value}.")
        if self.grader not in GRADERS:
            raise UserError(f"evaluation.grader={self.grader!r}: must be one of {', '.join(GRADERS)}.")
        if unknown := set(self.generation or {}) - GENERATION_KEYS:
            raise UserError(
                f"Unknown generation settings {sorted(unknown)} in evaluation; known: {sorted(GENERATION_KEYS)}."
            )


def load_tasks(names: Sequence[str], tokenizer: PreTrainedTokenizerBase, options: TaskOptions) -> dict[str, LoadedTask]:
    """Builds the tasks, in the order of their names."""
    if isinstance(names, str) or len(set(names)) != len(names):
        raise UserError(f"evaluation.tasks must be a list of different task names, not {names!r}.")
    return {name: load_variants(name, tokenizer, [options])[0] for name in names}


def load_variants(name: str, tokenizer: PreTrainedTokenizerBase, variants: Sequence[TaskOptions]) -> list[LoadedTask]:
    """One task under several options, such as decodings; its data are read once."""
    made: dict[str, Any] = {}
    return [_load_task(name, tokenizer, options, made) for options in variants]


def _load_task(name: str, tokenizer: PreTrainedTokenizerBase, options: TaskOptions, made: dict[str, Any]) -> LoadedTask:
    tasks_dir = options.tasks_dir.resolve()
    manager = _manager(tasks_dir)
    if name not in manager.all_subtasks:
        raise UserError(f"Unknown task {name!r}; known: {', '.join(manager.all_subtasks)}.")
    path = manager.task_index[name].yaml_path
    assert path is not None  # tasks come from files
    config = _changed(LOAD_YAML.get()(path), options)
    _check_metadata(name, config.get("custom_dataset"), options.metadata or {})
    metadata = config.get("metadata", {})
    documents = int(metadata.get(REPEAT_DOCUMENTS, 1))
    config["metadata"] = {**metadata, "data_dir": options.data_dir}
    if "custom_dataset" in config:
        config["custom_dataset"] = _once(config["custom_dataset"], made)
    if GRADER in metadata:
        config["process_results"] = _with_grader(config["process_results"], options.grader)
    with unobtrusive_lm_eval(logging.ERROR):
        task = manager.load([config])["tasks"][name]
    protocol = {
        # functions by name
        "config": _relative(_changed(LOAD_YAML.get()(path, resolve_func=False), options), tasks_dir),
        "documents": _digest(list(task.eval_docs)[: options.limit and options.limit * documents]),
        "chat_template": tokenizer.chat_template,
    }
    samples = documents if REPEAT_DOCUMENTS in metadata else int(config.get("repeats", 1))
    return LoadedTask(
        name,
        task,
        protocol_hash=_digest(protocol),
        samples=samples,
        documents_per_problem=documents,
        private=bool(metadata.get("keep_texts_private", False)),
        limit=options.limit,
        decoding=options.decoding,
    )


def read_data(name: str, options: TaskOptions) -> None:
    """Lets a task's loader read its data, with no model or tokenizer; UserError where something that it needs is not
    there.
    """
    path = _manager(options.tasks_dir.resolve()).task_index[name].yaml_path
    assert path is not None  # tasks come from files
    config = _changed(LOAD_YAML.get()(path), options)
    if "custom_dataset" in config:
        config["custom_dataset"](**{**config.get("metadata", {}), "data_dir": options.data_dir})


def longest_sequence(tasks: Iterable[LoadedTask]) -> int:
    """Positions of a prompt and its answer in any of these tasks, at most: what an engine is opened for; 0 without a
    task.
    """
    return max((task.max_new_tokens + PROMPT_ROOM for task in tasks), default=0)


def answer_length(name: str, tasks_dir: Path = TASKS_DIR) -> int:
    """Tokens of an answer in a task, at most, as its file says; reads no data."""
    path = _manager(tasks_dir.resolve()).task_index[name].yaml_path
    assert path is not None  # tasks come from files
    return _answer_length(LOAD_YAML.get()(path, resolve_func=False).get("generation_kwargs"))


def _answer_length(generation: Mapping[str, Any] | None) -> int:
    return int((generation or {}).get("max_gen_toks", DEFAULT_MAX_GEN_TOKS))


def _check_metadata(name: str, loader: Callable[..., Any] | None, metadata: Mapping[str, Any]) -> None:
    """A UserError for something that the task's loader does not ask for."""
    parameters: Mapping[str, inspect.Parameter] = inspect.signature(loader).parameters if loader else {}
    asked = [key for key, parameter in parameters.items() if parameter.kind != _ANY_OTHER]
    known = [key for key in asked if key not in ("data_dir", REPEAT_DOCUMENTS)]
    for key in metadata:
        if key not in known:
            raise UserError(
                f"evaluation.metadata.{name}.{key}: the task has no such key; it has {', '.join(known) or 'none'}."
            )


def known_tasks(tasks_dir: Path = TASKS_DIR) -> list[str]:
    """The names of all tasks."""
    return list(_manager(tasks_dir.resolve()).all_subtasks)


def task_folders(names: Sequence[str], tasks_dir: Path = TASKS_DIR) -> dict[str, str]:
    """The folder of each task within `tasks_dir`; reads no data. An unknown task is a UserError."""
    manager = _manager(tasks_dir.resolve())
    if unknown := [name for name in names if name not in manager.all_subtasks]:
        raise UserError(f"Unknown task {unknown[0]!r}; known: {', '.join(manager.all_subtasks)}.")
    return {name: Path(str(manager.task_index[name].yaml_path)).parent.name for name in names}


def process_results_of(name: str, tasks_dir: Path = TASKS_DIR) -> str | None:
    """The function that grades a task, by its dotted name; None: there is no such task."""
    manager = _manager(tasks_dir.resolve())
    if name not in manager.all_subtasks:
        return None
    config = LOAD_YAML.get()(str(manager.task_index[name].yaml_path), resolve_func=False)
    return str(_relative(config["process_results"], tasks_dir.resolve())).rpartition("/")[2]


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


def _changed(config: dict[str, Any], options: TaskOptions) -> dict[str, Any]:
    """Applies the options. lm-eval wants the number of samples twice: how many are drawn, and how many are kept.

    Where every repeat is a document, lm-eval knows of no repeats, and the task's loader gets the number.
    """
    if options.generation:
        config = {**config, "generation_kwargs": {**config.get("generation_kwargs", {}), **options.generation}}
    if options.metadata:
        config = {**config, "metadata": {**config.get("metadata", {}), **options.metadata}}
    if options.decoding:
        generation = DECODINGS[options.decoding].applied(config.get("generation_kwargs", {}))
        config = {**config, "generation_kwargs": generation}
    if GRADER in config.get("metadata", {}):
        config = {**config, "metadata": {**config["metadata"], GRADER: options.grader}}
    if options.samples is None:
        return config
    if REPEAT_DOCUMENTS in config.get("metadata", {}):
        return {**config, "metadata": {**config["metadata"], REPEAT_DOCUMENTS: options.samples}}
    filters = [
        {**pipeline, "filter": [_with_k(step, options.samples) for step in pipeline["filter"]]}
        for pipeline in config.get("filter_list", [])
    ]
    return {**config, "repeats": options.samples, "filter_list": filters}


def _with_k(step: dict[str, Any], samples: int) -> dict[str, Any]:
    return {**step, "k": samples} if step["function"] == "take_first_k" else step


def _once(load: Callable[..., Any], made: dict[str, Any]) -> Callable[..., Any]:
    """A loader of data that reads them once for the same metadata, and keeps them in `made`."""

    @functools.wraps(load)  # lm-eval writes its source down
    def loaded(**metadata: Any) -> Any:
        key = json.dumps(metadata, sort_keys=True, default=str)
        if key not in made:
            made[key] = load(**metadata)
        return made[key]

    return loaded


def _with_grader(process_results: Callable[..., Any], grader: str) -> Callable[..., Any]:
    @functools.wraps(process_results)  # lm-eval writes its source down
    def graded(doc: Mapping[str, Any], results: Sequence[Any]) -> Any:
        return process_results(doc, results, grader=grader)

    return graded


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
