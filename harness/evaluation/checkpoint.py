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
from harness.evaluation.driver import TaskResult, evaluate
from harness.evaluation.journal import JOURNAL, SampleJournal, read_journal
from harness.evaluation.loading import LoadedTask, load_tasks
from harness.evaluation.model import Drawing, EvaluatedModel
from harness.evaluation.options import check_options, options_of
from harness.files import read_rows, write_rows, write_text
from harness.models.contexts import context_length_of
from harness.models.loading import load_config, stored_stop_ids
from harness.results.record import ITEMS_FILE, TEXTS_FILE, RunRecord, whole_task
from harness.sandbox import ALLOW_UNSANDBOXED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROW_FILES = (ITEMS_FILE, TEXTS_FILE)


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


def load_configured(
    evaluation: EvaluationConfig, names: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> dict[str, LoadedTask]:
    """The tasks as the configuration wants each of them. Reads their data, runs no model."""
    check_options(evaluation)
    loaded: dict[str, LoadedTask] = {}
    with _unsandboxed(evaluation):
        for name in dict.fromkeys(names):
            loaded |= load_tasks([name], tokenizer, options_of(evaluation, name))
    return loaded


def score(
    evaluation: EvaluationConfig, tasks: Mapping[str, LoadedTask], model: EvaluatedModel, drawing: Drawing
) -> list[TaskResult]:
    """The outcome of loaded tasks, under the configuration's permission to run code."""
    with _unsandboxed(evaluation):
        return evaluate(model, tasks, drawing)


def evaluate_missing(
    record: RunRecord, evaluation: EvaluationConfig, tasks: Mapping[str, LoadedTask], checkpoint: CheckpointScoring
) -> RunRecord:
    """Scores a checkpoint on every task that its record lacks, and returns the record with them."""
    have = {(entry.task, entry.protocol_hash) for entry in record.evaluations}
    missing = {name: task for name, task in tasks.items() if (task.label, task.protocol_hash) not in have}
    if not missing:
        return record
    folder, identity = checkpoint.folder, checkpoint.identity
    with checkpoint.open_model() as model, SampleJournal(folder / JOURNAL, identity) as journal:
        drawing = Drawing(record.seed, journal, checkpoint.quiet)
        for name, task in missing.items():
            checkpoint.begins(task.label)
            started = time.perf_counter()
            (result,) = score(evaluation, {name: task}, model, drawing)
            _write_rows(folder, result)
            _write_lm_eval(folder, result, identity)
            seconds = record.counters.evaluation_s + time.perf_counter() - started
            record = dataclasses.replace(
                record,
                evaluations=(*record.evaluations, result.evaluation),
                counters=dataclasses.replace(record.counters, evaluation_s=seconds),
            )
            checkpoint.done(record)
    return record


def check_rows(folder: Path) -> None:
    """Reads what an earlier evaluation left; a file that cannot be gone on with is a UserError that names it and its
    line.
    """
    for name in ROW_FILES:
        for _ in _rows_of(folder / name):
            pass
    read_journal(folder / JOURNAL)


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

    task = whole_task(result.evaluation.task)  # a name without blanks; the protocol tells a part from the whole
    name = f"results_{task}-{result.evaluation.protocol_hash[:8]}.json"
    content = json.dumps({**result.lm_eval, "model_name": identity}, indent=2, default=handle_non_serializable)
    write_text(folder / "lm_eval" / name, content + "\n")
