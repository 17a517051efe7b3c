"""One run from configuration to finished record: train (or resume), save, evaluate. Failures become rows, never
tracebacks of the comparison.
"""

from __future__ import annotations

import dataclasses
import gc
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from harness.config.identity import model_identity
from harness.config.settings import RunConfig, Setting
from harness.console.progress import RunProgress
from harness.engines.backends import Source
from harness.engines.checks import by_teachers_servers, device_of
from harness.engines.opening import open_engine
from harness.errors import UserError
from harness.evaluation.checkpoint import (
    WEIGHTS,
    CheckpointScoring,
    evaluate_missing,
    evaluated_source,
    load_configured,
)
from harness.evaluation.journal import JOURNAL
from harness.evaluation.loading import longest_sequence
from harness.evaluation.model import EvaluatedModel
from harness.files import LOCK, clear_folder, is_full, no_room, remove_folder
from harness.models.loading import load_tokenizer
from harness.models.pair import check_pair, ends_of
from harness.results.escape import one_line
from harness.results.flops import counters_of
from harness.results.model_card import write_card
from harness.results.provenance import (
    collect_provenance,
    peak_gpu_memory_bytes,
    peak_memory_bytes,
    reset_peak_memory,
)
from harness.results.record import Counters, RunRecord, load_record, read_metrics, utc_now, write_record
from harness.results.seal import check_seal
from harness.training import ranks
from harness.training.budget import Budget
from harness.training.distance import measure_missing
from harness.training.train import train

NO_STATE = (
    "a method holds no state and leaves its arguments as they are, since a run that goes on after a kill would not "
    "have what was assigned: let credit compute it from batch, teacher, student and progress, and put what a person "
    "should see into TokenCredit.metrics"
)


def run_job(config: RunConfig) -> RunRecord:
    """Brings the run to its end, from wherever an earlier attempt left it, and leaves a record.

    UserError, and no trace of the run, for what the user can mend and what only the loaded models tell: no step was
    made.
    """
    folder = config.run_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK, timeout=0):
            return _run_locked(config, folder)
    except Timeout:
        _agree_to_train(config, False)
        raise UserError(f"another process is working on {folder}; wait for it or stop it.") from None
    except OSError as error:
        if is_full(error):
            raise no_room(folder) from error
        raise


def _run_locked(config: RunConfig, folder: Path) -> RunRecord:
    if config.fresh:
        clear_folder(folder)
    path = folder / "record.json"
    record = load_record(path) if path.exists() else None
    reset_peak_memory()
    torch.set_num_threads(config.engine.threads)
    progress = RunProgress(folder / "progress.json", config.setting.steps)
    if record is None or record.status != "completed":
        record = _new_record(config)
        write_record(path, record)
    try:
        if _agree_to_train(config, config.method is not None and not (folder / "checkpoint").exists()):
            if config.launch.num_processes > 1 and ranks.count() == 1:
                ranks.launch(config, folder)
            else:
                train(config, folder, progress)
                empty_device()
        record = _evaluate(config, folder, record, progress)
        record = _measure_distance(config, folder, record, progress)
    except Exception as error:  # a failed run is a row with a reason
        if is_full(error, folder):
            raise no_room(folder) from error
        if isinstance(error, UserError) and ranks.count() == 1 and not _has_begun(folder):
            remove_folder(folder, config.results_dir)
            raise
        (folder / "error.log").write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
        failed = dataclasses.replace(load_record(path), status="failed", finished_at=utc_now())
        record = dataclasses.replace(failed, reason=reason_of(error))
    record = dataclasses.replace(record, counters=_counters(config.setting, folder, record.counters))
    write_record(path, record)
    write_card(folder, record)
    progress.finish(record.status)
    if record.status == "failed" and ranks.count() > 1:  # the other ranks wait for this one; the launcher ends them
        raise SystemExit(f"error: {record.reason}")
    return record


def reason_of(error: Exception) -> str:
    """The error as one line of a table; for a method that keeps something, what it does instead."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, dataclasses.FrozenInstanceError):
        reason += f"; {NO_STATE}"
    return one_line(" ".join(reason.split()))[:500]


def _has_begun(folder: Path) -> bool:
    """Whether there is a step, a checkpoint or a score that a person may want to keep."""
    begun = [folder / "checkpoint", *folder.glob("trainer/*"), folder / JOURNAL]
    return bool(read_metrics(folder)) or any(path.exists() for path in begun)


def empty_device() -> None:
    """Frees what the training has left behind: models and optimiser are in circles of references, which the collector
    finds later than the evaluation opens its engine beside them.
    """
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _agree_to_train(config: RunConfig, needed: bool) -> bool:
    """Tells the ranks that follow this process (harness.training.ranks) whether they are needed."""
    return ranks.from_main(needed) if config.method is not None else False


def _evaluate(config: RunConfig, folder: Path, record: RunRecord, progress: RunProgress) -> RunRecord:
    """Scores the run on every task of the configuration that its record lacks; trains nothing."""
    setting = config.setting
    name, revision = _weights_of(config, folder)
    tokenizer = load_tokenizer(setting.student, setting.student_revision)
    tasks = load_configured(config.evaluation, config.evaluation.tasks, tokenizer)
    source, longest = Source(name, revision, setting.dtype), longest_sequence(tasks.values())
    engine = config.engine if config.method_name != "teacher" else by_teachers_servers(config.engine)

    @contextmanager
    def open_model() -> Iterator[EvaluatedModel]:
        check_seal(Path(name), "run again with fresh=true")
        vocab_size = check_pair(config)
        with open_engine(engine, source, vocab_size, folder, longest=longest, role="evaluation") as opened:
            model = evaluated_source(opened, source, tokenizer)
            if setting.termination == "map":  # the untrained rows stop where the trained ones do
                model = dataclasses.replace(model, stop_ids=ends_of(setting).union)
            yield model

    identity = model_identity(name, revision)
    checkpoint = CheckpointScoring(
        folder=folder,
        identity=identity,
        engine=config.engine.who("evaluation"),
        open_model=open_model,
        begins=lambda column: progress.phase(f"evaluating {column}"),
        done=lambda record: write_record(folder / "record.json", record),
    )
    evaluated = evaluate_missing(record, config.evaluation, tasks, checkpoint)
    finished_at = record.finished_at if record.status == "completed" and evaluated is record else utc_now()
    provenance = {**evaluated.provenance, WEIGHTS: identity}
    return dataclasses.replace(evaluated, status="completed", reason="", finished_at=finished_at, provenance=provenance)


def _weights_of(config: RunConfig, folder: Path) -> tuple[str, str | None]:
    """Folder or Hub id, and revision, of what the run is scored by."""
    setting = config.setting
    untrained = {
        "student": (setting.student, setting.student_revision),
        "teacher": (setting.teacher, setting.teacher_revision),
    }
    return untrained.get(config.method_name, (str(folder / "checkpoint"), None))


def _measure_distance(config: RunConfig, folder: Path, record: RunRecord, progress: RunProgress) -> RunRecord:
    """A finished run's distance to its teacher; its seconds count as evaluation."""
    started = time.perf_counter()
    measured = measure_missing(config, folder, _weights_of(config, folder), record, progress=progress)
    if measured is record:
        return record
    seconds = record.counters.evaluation_s + time.perf_counter() - started
    return dataclasses.replace(measured, counters=dataclasses.replace(record.counters, evaluation_s=seconds))


def _new_record(config: RunConfig) -> RunRecord:
    return RunRecord(
        method=config.method_name,
        knobs=config.knobs(),
        changed_knobs=config.changed_knobs(),
        setting=config.setting.by_value(),
        training_hash=config.setting.training_hash(),
        seed=config.seed,
        status="started",
        engine=config.engine.who("student" if config.method is not None else "evaluation"),
        teacher_engine=config.engine.who("teacher") if config.method is not None else "",
        provenance=_provenance(config),
        started_at=utc_now(),
    )


def _provenance(config: RunConfig) -> dict[str, Any]:
    """Of this process; with the GPUs of all ranks, and what it is all made from."""
    found = {**collect_provenance(device_of(config)), **config.sources()}
    if config.method is not None:
        found["micro_batch_prompts"] = config.engine.micro_batch_prompts
    return {**found, "gpus": found["gpus"] * max(config.launch.num_processes, ranks.count())}


def _counters(setting: Setting, folder: Path, before: Counters) -> Counters:
    """Sums over metrics.jsonl, so that a resumed run counts every step once."""
    rows = read_metrics(folder)

    def total(key: str) -> float:
        return sum(row.get(key, 0.0) for row in rows)

    peak, on_gpu = before.peak_memory_bytes, max(before.peak_gpu_memory_bytes, peak_gpu_memory_bytes())
    if before.steps != len(rows) or not peak:
        peak = max([peak_memory_bytes(), *(int(row.get("memory/peak_bytes", 0)) for row in rows)])
    return dataclasses.replace(
        counters_of(rows),
        operations=Budget(setting, rows).operations,
        rollout_s=total("time/rollout_s"),
        scoring_s=total("time/scoring_s"),
        update_s=total("time/update_s"),
        evaluation_s=before.evaluation_s,
        peak_memory_bytes=peak,
        peak_gpu_memory_bytes=max([on_gpu, *(int(row.get("memory/gpu_peak_bytes", 0)) for row in rows)]),
    )
