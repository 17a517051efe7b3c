"""One checkpoint scored on the tasks of an EvaluationConfig: what its record and the files beside it gain.

In the folder: items.jsonl (a row per problem and sample), texts.jsonl (the texts of those), generations.jsonl (the
journal from which an interrupted evaluation goes on) and lm_eval/results_<task>-<protocol>.json (lm-eval's own
results).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.settings import EvaluationConfig
from harness.engines.opening import Opened, Source
from harness.errors import UserError
from harness.evaluation.driver import TaskResult, evaluate
from harness.evaluation.journal import JOURNAL, SampleJournal, read_journal
from harness.evaluation.loading import LoadedTask, TaskOptions, load_tasks, task_folders
from harness.evaluation.model import Drawing, EvaluatedModel
from harness.files import read_rows, write_rows, write_text
from harness.models.contexts import context_length_of
from harness.models.loading import load_config, stored_stop_ids
from harness.results.record import ITEMS_FILE, TEXTS_FILE, RunRecord
from harness.rollout import Finished, Progress, RolloutRequest, Sampling
from harness.sandbox import ALLOW_UNSANDBOXED
from harness.types import Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROW_FILES = (ITEMS_FILE, TEXTS_FILE)
WEIGHTS = "weights"  # in a record's provenance: identity of the checkpoint that its scores are of


@dataclass(frozen=True)
class CheckpointScoring:
    """A checkpoint that is to be scored: where its rows go, and whom to tell."""

    folder: Path
    identity: str  # of the weights (harness.config.identity): whose samples the journal's are
    open_model: Callable[[], AbstractContextManager[EvaluatedModel]]  # entered only if a task is missing
    begins: Callable[[str], None] = lambda task: None  # called with a task's name before it is scored
    done: Callable[[RunRecord], None] = lambda record: None  # called with the record after every task
    quiet: bool = True  # no progress bars


def evaluated_source(opened: Opened, source: Source, tokenizer: PreTrainedTokenizerBase) -> EvaluatedModel:
    """A stored model behind an opened engine, whichever it is."""
    length = context_length_of(load_config(source.name, source.revision))
    return EvaluatedModel(opened.engine, tokenizer, length, stored_stop_ids(source.name, source.revision, tokenizer))


def check_options(evaluation: EvaluationConfig) -> None:
    """A UserError for a task that does not exist or an option that is none; reads no data."""
    task_folders(evaluation.tasks)
    for task in evaluation.tasks:
        TaskOptions(data_dir=evaluation.data_dir, **_task_options(evaluation, task))


def load_configured(
    evaluation: EvaluationConfig, names: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> dict[str, LoadedTask]:
    """The tasks as the configuration wants each of them. Reads their data, runs no model."""
    loaded: dict[str, LoadedTask] = {}
    with _unsandboxed(evaluation):
        for name in dict.fromkeys(names):
            options = TaskOptions(data_dir=evaluation.data_dir, **_task_options(evaluation, name))
            loaded |= load_tasks([name], tokenizer, options)
    return loaded


def score(
    evaluation: EvaluationConfig, tasks: Mapping[str, LoadedTask], model: EvaluatedModel, drawing: Drawing
) -> list[TaskResult]:
    """The outcome of loaded tasks, under the configuration's permission to run code."""
    with _unsandboxed(evaluation):
        return evaluate(model, tasks, drawing)


class _Asked(Exception):
    """The prompts are made, and a sample would be drawn."""


class _NoEngine:
    """Ends an evaluation where it would begin to generate."""

    policy_version = 0

    def generate(
        self,
        requests: Sequence[RolloutRequest],
        sampling: Sampling,
        progress: Progress | None = None,
        finished: Finished | None = None,
    ) -> list[Rollout]:
        raise _Asked


def check_plan(
    evaluation: EvaluationConfig, tasks: Mapping[str, LoadedTask], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> None:
    """UserError for a prompt that leaves no room in a model of `max_length` positions, and for sampling that is none:
    makes every prompt of the tasks, runs no model.
    """
    model = EvaluatedModel(_NoEngine(), tokenizer, max_length, stop_ids=())
    for name, task in tasks.items():
        with contextlib.suppress(_Asked):
            score(evaluation, {name: task}, model, Drawing(run_seed=0))


def evaluate_missing(
    record: RunRecord, evaluation: EvaluationConfig, tasks: Mapping[str, LoadedTask], checkpoint: CheckpointScoring
) -> RunRecord:
    """Scores a checkpoint on every task that its record lacks, and returns the record with them and with the weights
    that it is of.
    """
    check_weights(record, checkpoint.identity, checkpoint.folder)
    have = {(entry.task, entry.protocol_hash) for entry in record.evaluations}
    missing = {name: task for name, task in tasks.items() if (name, task.protocol_hash) not in have}
    if not missing:
        return record
    folder, identity = checkpoint.folder, checkpoint.identity
    with checkpoint.open_model() as model, SampleJournal(folder / JOURNAL, identity) as journal:
        drawing = Drawing(record.seed, journal, checkpoint.quiet)
        for name, task in missing.items():
            checkpoint.begins(name)
            started = time.perf_counter()
            (result,) = score(evaluation, {name: task}, model, drawing)
            _write_rows(folder, result)
            _write_lm_eval(folder, result, identity)
            seconds = record.counters.evaluation_s + time.perf_counter() - started
            record = dataclasses.replace(
                record,
                evaluations=(*record.evaluations, result.evaluation),
                provenance={**record.provenance, WEIGHTS: identity},
                counters=dataclasses.replace(record.counters, evaluation_s=seconds),
            )
            checkpoint.done(record)
    return record


def check_weights(record: RunRecord, identity: str, folder: Path) -> None:
    """UserError where the checkpoint that was scored has other content today: its scores would be of what is gone."""
    known = record.provenance.get(WEIGHTS, identity)
    if known != identity:
        raise UserError(
            f"{folder} was scored with another checkpoint ({known} instead of {identity}: weights, tokenizer, template "
            "or end tokens); put it back, copy the new one elsewhere to score it by itself, or train the run again "
            "with fresh=true."
        )


def check_rows(folder: Path) -> None:
    """Reads what an earlier evaluation left; a file that cannot be gone on with is a UserError that names it and its
    line.
    """
    for name in ROW_FILES:
        for _ in _rows_of(folder / name):
            pass
    read_journal(folder / JOURNAL)


def _task_options(evaluation: EvaluationConfig, task: str) -> dict[str, Any]:
    generation = {**evaluation.sampling.get("all", {}), **evaluation.sampling.get(task, {})}
    if task in evaluation.max_new_tokens:
        generation["max_gen_toks"] = evaluation.max_new_tokens[task]
    return {
        "samples": evaluation.samples.get(task),
        "generation": generation or None,
        "grader": evaluation.grader,
    }


@contextlib.contextmanager
def _unsandboxed(evaluation: EvaluationConfig) -> Iterator[None]:
    """`evaluation.allow_unsandboxed_code=true` is the same as the environment variable, for as long as it is asked."""
    before = os.environ.get(ALLOW_UNSANDBOXED)
    if evaluation.allow_unsandboxed_code:
        os.environ[ALLOW_UNSANDBOXED] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(ALLOW_UNSANDBOXED, None)
        else:
            os.environ[ALLOW_UNSANDBOXED] = before


def _write_rows(folder: Path, result: TaskResult) -> None:
    """Replaces the rows of this task and protocol in items.jsonl and texts.jsonl, atomically."""
    key = (result.evaluation.task, result.evaluation.protocol_hash)
    rows: dict[str, Sequence[Mapping[str, Any]]] = {
        TEXTS_FILE: result.texts,
        ITEMS_FILE: [dataclasses.asdict(row) for row in result.items],
    }
    for name, new in rows.items():
        kept = [row for row in _rows_of(folder / name) if (row["task"], row["protocol_hash"]) != key]
        write_rows(folder / name, [*kept, *new])


def _rows_of(path: Path) -> Iterator[dict[str, Any]]:
    way_out = "delete the file to have it evaluated again"
    return (row for _, row in read_rows(path, torn_last_line="refuse", way_out=way_out, missing_ok=True))


def _write_lm_eval(folder: Path, result: TaskResult, identity: str) -> None:
    """lm-eval's results of the task as lm-eval would write them, without samples: those are in the row files."""
    from lm_eval.utils import handle_non_serializable

    name = f"results_{result.evaluation.task}-{result.evaluation.protocol_hash[:8]}.json"
    content = json.dumps({**result.lm_eval, "model_name": identity}, indent=2, default=handle_non_serializable)
    write_text(folder / "lm_eval" / name, content + "\n")
