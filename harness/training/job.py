"""One run from configuration to finished record: train (or resume), save, evaluate. Failures become rows, never
tracebacks of the comparison.
"""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from harness.config.identity import model_identity
from harness.config.settings import RunConfig
from harness.console.progress import RunProgress
from harness.engines.checks import device_of
from harness.engines.opening import Source, open_engine
from harness.errors import UserError
from harness.evaluation.checkpoint import CheckpointScoring, evaluate_missing, evaluated_source, load_configured
from harness.evaluation.model import EvaluatedModel
from harness.files import LOCK, clear_folder, is_full, no_room
from harness.models.loading import load_tokenizer
from harness.models.pair import check_pair, ends_of
from harness.results.escape import one_line
from harness.results.model_card import write_card
from harness.results.provenance import collect_provenance, peak_memory_bytes, reset_peak_memory
from harness.results.record import Counters, RunRecord, load_record, read_metrics, utc_now, write_record
from harness.results.seal import check_seal
from harness.training import ranks
from harness.training.train import train


def run_job(config: RunConfig) -> RunRecord:
    """Brings the run to its end, from wherever an earlier attempt left it; always leaves a record."""
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
        record = _evaluate(config, folder, record, progress)
    except Exception as error:  # a failed run is a row with a reason
        if is_full(error, folder):
            raise no_room(folder) from error
        (folder / "error.log").write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
        reason = one_line(" ".join(f"{type(error).__name__}: {error}".split()))[:500]
        record = dataclasses.replace(load_record(path), status="failed", reason=reason, finished_at=utc_now())
    record = dataclasses.replace(record, counters=_counters(folder, record.counters))
    write_record(path, record)
    write_card(folder, record)
    progress.finish(record.status)
    if record.status == "failed" and ranks.count() > 1:  # the other ranks wait for this one; the launcher ends them
        raise SystemExit(f"error: {record.reason}")
    return record


def _agree_to_train(config: RunConfig, needed: bool) -> bool:
    """Tells the ranks that follow this process (harness.training.ranks) whether they are needed."""
    return ranks.from_main(needed) if config.method is not None else False


def _evaluate(config: RunConfig, folder: Path, record: RunRecord, progress: RunProgress) -> RunRecord:
    """Scores the run on every task of the configuration that its record lacks; trains nothing."""
    setting = config.setting
    untrained = {
        "student": (setting.student, setting.student_revision),
        "teacher": (setting.teacher, setting.teacher_revision),
    }
    name, revision = untrained.get(config.method_name, (str(folder / "checkpoint"), None))
    tokenizer = load_tokenizer(setting.student, setting.student_revision)
    source = Source(name, revision, setting.dtype)

    @contextmanager
    def open_model() -> Iterator[EvaluatedModel]:
        check_seal(Path(name), "run again with fresh=true")
        with open_engine(config.engine, source, check_pair(config), folder) as opened:
            model = evaluated_source(opened, source, tokenizer)
            if setting.termination == "map":  # the untrained rows stop where the trained ones do
                model = dataclasses.replace(model, stop_ids=ends_of(setting).union)
            yield model

    checkpoint = CheckpointScoring(
        folder=folder,
        identity=model_identity(name, revision),
        open_model=open_model,
        begins=lambda task: progress.phase(f"evaluating {task}"),
        done=lambda record: write_record(folder / "record.json", record),
    )
    tasks = load_configured(config.evaluation, config.evaluation.tasks, tokenizer)
    evaluated = evaluate_missing(record, config.evaluation, tasks, checkpoint)
    finished_at = record.finished_at if record.status == "completed" and evaluated is record else utc_now()
    return dataclasses.replace(evaluated, status="completed", reason="", finished_at=finished_at)


def _new_record(config: RunConfig) -> RunRecord:
    return RunRecord(
        method=config.method_name,
        knobs=config.knobs(),
        changed_knobs=config.changed_knobs(),
        setting=config.setting.by_value(),
        training_hash=config.setting.training_hash(),
        seed=config.seed,
        status="started",
        engine=config.engine.name,
        provenance=_provenance(config),
        started_at=utc_now(),
    )


def _provenance(config: RunConfig) -> dict[str, Any]:
    """Of this process; with the GPUs of all ranks, and what it is all made from."""
    found = {**collect_provenance(device_of(config)), **config.sources()}
    return {**found, "gpus": found["gpus"] * max(config.launch.num_processes, ranks.count())}


def _counters(folder: Path, before: Counters) -> Counters:
    """Sums over metrics.jsonl, so that a resumed run counts every step once."""
    rows = read_metrics(folder)

    def total(key: str) -> float:
        return sum(row.get(key, 0.0) for row in rows)

    peak = before.peak_memory_bytes
    if before.steps != len(rows) or not peak:
        peak = max([peak_memory_bytes(), *(int(row.get("memory/peak_bytes", 0)) for row in rows)])
    return Counters(
        steps=len(rows),
        student_tokens=int(total("tokens/student")),
        teacher_tokens=int(total("tokens/teacher")),
        scored_tokens=int(total("tokens/scored")),
        rollout_s=total("time/rollout_s"),
        scoring_s=total("time/scoring_s"),
        update_s=total("time/update_s"),
        evaluation_s=before.evaluation_s,
        peak_memory_bytes=peak,
    )
