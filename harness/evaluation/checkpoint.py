"""One checkpoint scored on the tasks of an EvaluationConfig: what its record and the files beside it gain.

In the folder: items.jsonl (a row per problem and sample), texts.jsonl (the texts of those), generations.jsonl (the
journal from which an interrupted evaluation goes on) and lm_eval/results_<task>-<protocol>.json (lm-eval's own results).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.settings import EvaluationConfig
from harness.engines.opening import Opened, Source
from harness.errors import UserError
from harness.evaluation.driver import TaskResult, evaluate, protocol_hashes
from harness.evaluation.journal import JOURNAL, SampleJournal, read_journal
from harness.evaluation.loading import TaskOptions, task_folders
from harness.files import write_text
from harness.models.contexts import context_length_of
from harness.models.loading import load_config, stored_stop_ids
from harness.results.record import RunRecord
from harness.rollout import RolloutEngine
from harness.sandbox import ALLOW_UNSANDBOXED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROW_FILES = ("items.jsonl", "texts.jsonl")


@dataclass(frozen=True)
class Evaluated:
    """A model that is ready to be scored."""

    engine: RolloutEngine
    tokenizer: PreTrainedTokenizerBase
    max_length: int  # positions of the model
    stop_ids: tuple[int, ...]


def evaluated_source(opened: Opened, source: Source, tokenizer: PreTrainedTokenizerBase) -> Evaluated:
    """A stored model behind an opened engine, whichever it is."""
    length = context_length_of(load_config(source.name, source.revision))
    return Evaluated(opened.engine, tokenizer, length, stored_stop_ids(source.name, source.revision, tokenizer))


def check_options(evaluation: EvaluationConfig) -> None:
    """A UserError for a task that does not exist or an option that is none; reads no data."""
    task_folders(evaluation.tasks)
    for task in evaluation.tasks:
        TaskOptions(data_dir=evaluation.data_dir, **_task_options(evaluation, task))


def protocol_of(evaluation: EvaluationConfig, task: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The protocol hash of a task in this configuration; reads the task's data, runs no model."""
    with _unsandboxed(evaluation):
        options = _task_options(evaluation, task)
        return protocol_hashes([task], tokenizer, data_dir=evaluation.data_dir, **options)[task]


def score(
    evaluation: EvaluationConfig,
    task: str,
    model: Evaluated,
    run_seed: int,
    *,
    quiet: bool = True,
    journal: SampleJournal | None = None,
) -> TaskResult:
    """The outcome of one task; `run_seed` is that of the run that made the model."""
    with _unsandboxed(evaluation):
        (result,) = evaluate(
            model.engine,
            model.tokenizer,
            [task],
            run_seed=run_seed,
            max_length=model.max_length,
            data_dir=evaluation.data_dir,
            stop_ids=model.stop_ids,
            quiet=quiet,
            journal=journal,
            **_task_options(evaluation, task),
        )
    return result


def evaluate_missing(
    record: RunRecord,
    folder: Path,
    evaluation: EvaluationConfig,
    tokenizer: PreTrainedTokenizerBase,
    identity: str,
    load: Callable[[], Evaluated],
    *,
    quiet: bool = True,
    begins: Callable[[str], None] = lambda task: None,
    done: Callable[[RunRecord], None] = lambda record: None,
) -> RunRecord:
    """Scores a checkpoint on every task of the configuration that its record lacks, and returns the record with them.

    Args:
        folder: where the rows go.
        identity: of the weights (harness.config.settings.model_identity): whose samples the journal's are.
        load: makes the model ready; called only if a task is missing.
        quiet: no progress bars.
        begins: called with a task's name before it is scored. done: called with the record after every task.
    """
    have = {(entry.task, entry.protocol_hash) for entry in record.evaluations}
    missing = [task for task in evaluation.tasks if (task, protocol_of(evaluation, task, tokenizer)) not in have]
    if not missing:
        return record
    model = load()
    with SampleJournal(folder / JOURNAL, identity) as journal:
        for task in missing:
            begins(task)
            started = time.perf_counter()
            result = score(evaluation, task, model, record.seed, quiet=quiet, journal=journal)
            _write_rows(folder, result)
            _write_lm_eval(folder, result, identity)
            seconds = record.counters.evaluation_s + time.perf_counter() - started
            record = dataclasses.replace(
                record,
                evaluations=(*record.evaluations, result.evaluation),
                counters=dataclasses.replace(record.counters, evaluation_s=seconds),
            )
            done(record)
    return record


def check_rows(folder: Path) -> None:
    """Reads what an earlier evaluation left; a file that cannot be gone on with is a UserError that names it and its line."""
    for name in ROW_FILES:
        for _ in _read_rows(folder / name):
            pass
    read_journal(folder / JOURNAL)


def _task_options(evaluation: EvaluationConfig, task: str) -> dict[str, Any]:
    generation = {**evaluation.sampling.get("all", {}), **evaluation.sampling.get(task, {})}
    if task in evaluation.max_new_tokens:
        generation["max_gen_toks"] = evaluation.max_new_tokens[task]
    return {"samples": evaluation.samples.get(task), "generation": generation or None}


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
        "texts.jsonl": result.texts,
        "items.jsonl": [dataclasses.asdict(row) for row in result.items],
    }
    for name, new in rows.items():
        kept = [row for row in _read_rows(folder / name) if (row["task"], row["protocol_hash"]) != key]
        write_text(folder / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [*kept, *new]))


def _read_rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line:
            continue
        try:
            yield json.loads(line)
        except ValueError:
            raise UserError(
                f"{path}, line {number}: not valid JSON; delete the file to have it evaluated again."
            ) from None


def _write_lm_eval(folder: Path, result: TaskResult, identity: str) -> None:
    """lm-eval's results of the task as lm-eval would write them, without samples: those are in the row files."""
    from lm_eval.utils import handle_non_serializable

    name = f"results_{result.evaluation.task}-{result.evaluation.protocol_hash[:8]}.json"
    content = json.dumps({**result.lm_eval, "model_name": identity}, indent=2, default=handle_non_serializable)
    write_text(folder / "lm_eval" / name, content + "\n")
