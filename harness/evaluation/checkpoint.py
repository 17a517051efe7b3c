"""One checkpoint scored on the tasks of an EvaluationConfig, under each of their decodings: what its record and the
files beside it gain.

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

from harness.config.decodings import column_of
from harness.config.settings import EvaluationConfig
from harness.engines.backends import Source
from harness.engines.opening import Opened
from harness.errors import UserError
from harness.evaluation.driver import TaskResult, evaluate
from harness.evaluation.journal import JOURNAL, SampleJournal, read_journal
from harness.evaluation.loading import PROMPT_ROOM, LoadedTask, answer_length, load_variants
from harness.evaluation.model import Drawing, EvaluatedModel
from harness.evaluation.options import check_options, options_of
from harness.files import write_rows, write_text
from harness.models.contexts import context_length_of
from harness.models.loading import load_config, stored_stop_ids
from harness.models.template import check_question
from harness.results.record import ITEMS_FILE, ROW_FILES, TEXTS_FILE, RunRecord, whole_task
from harness.results.schema import checked_rows
from harness.rollout import Finished, Progress, RolloutRequest, Sampling
from harness.sandbox import ALLOW_UNSANDBOXED
from harness.types import Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WEIGHTS = "weights"  # in a record's provenance: identity of the checkpoint that its scores are of


@dataclass(frozen=True)
class CheckpointScoring:
    """A checkpoint that is to be scored: where its rows go, and whom to tell."""

    folder: Path
    identity: str  # of the weights (harness.config.identity): whose samples the journal's are
    engine: str  # who draws the samples: hf, vllm or server
    open_model: Callable[[], AbstractContextManager[EvaluatedModel]]  # entered only if a task is missing
    begins: Callable[[str], None] = lambda column: None  # called with a column's name before it is scored
    done: Callable[[RunRecord], None] = lambda record: None  # called with the record after every column
    quiet: bool = True  # no progress bars


def evaluated_source(opened: Opened, source: Source, tokenizer: PreTrainedTokenizerBase) -> EvaluatedModel:
    """A stored model behind an opened engine, whichever it is."""
    length = context_length_of(load_config(source.name, source.revision))
    stops = stored_stop_ids(source.name, source.revision, tokenizer)
    opened_for = length if opened.backend is None else opened.backend.max_length
    return EvaluatedModel(opened.engine, tokenizer, length, stops, opened_for=opened_for)


def load_configured(
    evaluation: EvaluationConfig, names: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> dict[str, LoadedTask]:
    """The tasks as the configuration wants each of them, by column: under every decoding that it names. Reads the data
    of a task once, runs no model.
    """
    check_options(evaluation)
    if names and tokenizer.chat_template is not None:
        check_question(tokenizer, {})
    loaded: dict[str, LoadedTask] = {}
    with _unsandboxed(evaluation):
        for name in dict.fromkeys(names):
            for task in load_variants(name, tokenizer, options_of(evaluation, name)):
                loaded[column_of(task.label, task.decoding)] = task
    return loaded


def load_development(evaluation: EvaluationConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, LoadedTask]:
    """The development task, if there is one: under its own decoding alone, whatever the benchmarks are decoded by."""
    names = [evaluation.dev_task] if evaluation.dev_task else []
    return load_configured(dataclasses.replace(evaluation, decodings={}), names, tokenizer)


def longest_asked(evaluation: EvaluationConfig) -> int:
    """What loading.longest_sequence gives for the configuration's tasks, from their files alone: no data is read."""
    asked = {task: options_of(evaluation, task)[0].generation or {} for task in evaluation.tasks}
    lengths = [int(own.get("max_gen_toks") or answer_length(task)) for task, own in asked.items()]
    return max(lengths) + PROMPT_ROOM if lengths else 0


def score(
    evaluation: EvaluationConfig, tasks: Mapping[str, LoadedTask], model: EvaluatedModel, drawing: Drawing
) -> list[TaskResult]:
    """The outcome of loaded tasks, by name, under the configuration's permission to run code."""
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
    for task in {task.label: task for task in tasks.values()}.values():  # decodings share their prompts
        with contextlib.suppress(_Asked):
            score(evaluation, {task.name: task}, model, Drawing(run_seed=0))


def evaluate_missing(
    record: RunRecord, evaluation: EvaluationConfig, tasks: Mapping[str, LoadedTask], checkpoint: CheckpointScoring
) -> RunRecord:
    """Scores a checkpoint on every column that its record lacks, and returns the record with them and with the weights
    that it is of.

    A protocol that was scored before under another name of its decoding gets this one's, and is not scored again; one
    whose samples another engine has drawn is a UserError.
    """
    check_drawn(record, tasks, checkpoint.engine, checkpoint.folder)
    check_weights(record, checkpoint.identity, checkpoint.folder)
    names = {(task.label, task.protocol_hash): task.decoding for task in tasks.values()}
    named = tuple(
        dataclasses.replace(e, decoding=names.get((e.task, e.protocol_hash), e.decoding)) for e in record.evaluations
    )
    if named != record.evaluations:
        record = dataclasses.replace(record, evaluations=named)
    have = {(entry.task, entry.protocol_hash) for entry in record.evaluations}
    missing = {column: task for column, task in tasks.items() if (task.label, task.protocol_hash) not in have}
    if not missing:
        return record
    folder, identity = checkpoint.folder, checkpoint.identity
    with checkpoint.open_model() as model, SampleJournal(folder / JOURNAL, identity, checkpoint.engine) as journal:
        drawing = Drawing(record.seed, journal, checkpoint.quiet)
        for column, task in missing.items():
            checkpoint.begins(column)
            started = time.perf_counter()
            (result,) = score(evaluation, {task.name: task}, model, drawing)
            _write_rows(folder, result)
            _write_lm_eval(folder, result, identity)
            seconds = record.counters.evaluation_s + time.perf_counter() - started
            record = dataclasses.replace(
                record,
                evaluations=(*record.evaluations, dataclasses.replace(result.evaluation, engine=checkpoint.engine)),
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


def check_drawn(record: RunRecord, tasks: Mapping[str, LoadedTask], engine: str, folder: Path) -> None:
    """UserError where another engine has drawn the samples of one of these columns for the record in a folder."""
    wanted = {(task.label, task.protocol_hash) for task in tasks.values()}
    for evaluation in record.evaluations:
        drawn_by = record.drawn_by(evaluation)
        if (evaluation.task, evaluation.protocol_hash) in wanted and drawn_by != engine:
            raise UserError(
                f"{folder}: the samples of {evaluation.column} were drawn by {drawn_by}, and a column has one engine: "
                f"give engine.evaluation={drawn_by}, or, to score a checkpoint by {engine} too, `python -m "
                f"harness.evaluate` with a name=… of its own."
            )


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
    mend = "restore the line, or run again with fresh=true"
    rows = checked_rows(path, ROW_FILES[path.name], torn_last_line="refuse", way_out=mend)
    return (row for _, row in rows)


def _write_lm_eval(folder: Path, result: TaskResult, identity: str) -> None:
    """lm-eval's results of the task as lm-eval would write them, without samples: those are in the row files."""
    from lm_eval.utils import handle_non_serializable

    task = whole_task(result.evaluation.task)  # a name without blanks; the protocol tells a part from the whole
    name = f"results_{task}-{result.evaluation.protocol_hash[:8]}.json"
    content = json.dumps({**result.lm_eval, "model_name": identity}, indent=2, default=handle_non_serializable)
    write_text(folder / "lm_eval" / name, content + "\n")
