"""One run from configuration to finished record: train (or resume), save, evaluate. Failures become rows, never tracebacks of the comparison."""

from __future__ import annotations

import dataclasses
import os
import shutil
import traceback
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from harness.config.identity import model_identity
from harness.config.settings import RunConfig
from harness.console.progress import RunProgress
from harness.engines.checks import device_of
from harness.engines.opening import Opened, Source, open_engine, open_hf
from harness.errors import UserError
from harness.evaluation.checkpoint import Evaluated, evaluate_missing, evaluated_source, score
from harness.models.contexts import context_length
from harness.models.loading import load_tokenizer
from harness.models.pair import check_pair
from harness.results.model_card import write_card
from harness.results.provenance import collect_provenance, peak_memory_bytes, reset_peak_memory
from harness.results.record import CURVE, Counters, RunRecord, load_record, write_record
from harness.rollout.weights import CheckedWeights
from harness.scoring.hf import HFScorer
from harness.training import ranks
from harness.training.guidance import load_or_make_responses
from harness.training.loaded import Models, load_models
from harness.training.prompts import load_prompts, prompt_order
from harness.training.recorder import StepRecorder, complete_checkpoint, read_metrics
from harness.training.self_check import check_engine, check_served, report_difference
from harness.training.trainer import DistillationTrainer, Machinery, training_sampling

CACHE_FOLDER = ".cache"  # under results_dir: teacher responses


def run_job(config: RunConfig) -> RunRecord:
    """Brings the run to its end, from wherever an earlier attempt left it; always leaves a record."""
    folder = config.run_folder()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            return _run_locked(config, folder)
    except Timeout:
        _agree_to_train(config, False)
        raise UserError(f"another process is working on {folder}; wait for it or stop it.") from None


def _run_locked(config: RunConfig, folder: Path) -> RunRecord:
    if config.fresh:
        for path in folder.iterdir():
            if path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
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
        (folder / "error.log").write_text(traceback.format_exc())
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        record = dataclasses.replace(load_record(path), status="failed", reason=reason, finished_at=_now())
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


def train(config: RunConfig, folder: Path, progress: RunProgress) -> None:
    """Trains from the last complete checkpoint (or the start) and leaves `checkpoint/`."""
    progress.phase("loading")
    models = load_models(config)
    with _opened_student(config, models, folder) as student, _opened_teacher(config, models, folder) as teacher:
        _train(config, folder, progress, models, student, teacher)


def _opened_student(config: RunConfig, models: Models, folder: Path) -> AbstractContextManager[Opened]:
    setting = config.setting
    source = Source(setting.student, setting.student_revision, setting.dtype)
    return open_engine(config.engine, source, models.vocab_size, folder, model=models.student)


def _opened_teacher(config: RunConfig, models: Models, folder: Path) -> AbstractContextManager[Opened]:
    if models.teacher is not None:
        return open_hf(models.teacher, models.vocab_size, config.engine.rows_per_batch)
    setting = config.setting
    source = Source(setting.teacher, setting.teacher_revision, setting.dtype)
    return open_engine(config.engine, source, models.vocab_size, folder, role="teacher")


def _train(
    config: RunConfig, folder: Path, progress: RunProgress, models: Models, student: Opened, teacher: Opened
) -> None:
    assert config.method is not None and student.weights is not None
    setting = config.setting
    prompts = load_prompts(
        setting.prompts, models.tokenizer, split=setting.prompts_split, max_tokens=setting.max_prompt_tokens
    )
    responses = None
    if config.method.needs_teacher_responses():
        sampling = training_sampling(setting, models.stop_ids)
        cache = config.results_dir / CACHE_FOLDER
        needed = prompt_order(len(prompts), config.seed, setting.steps * setting.prompts_per_step)
        identity = setting.teacher_identity()
        responses = load_or_make_responses(cache, identity, teacher.engine, prompts, sampling, needed, progress.bar)
    weights = student.weights
    if student.backend is not None:
        check_served(student.backend, models, setting.dtype)
        weights = CheckedWeights(
            weights, lambda version: report_difference(machinery, setting.dtype, f"at version {version}")
        )
    machinery = Machinery(
        student=models.student,
        engine=student.engine,
        student_scorer=HFScorer(models.student, models.vocab_size),
        teacher_scorer=teacher.scorer,
        prompts=prompts,
        responses=responses,
        stop_ids=models.stop_ids,
        vocab_size=models.vocab_size,
        weights=weights,
        engine_is_trainer=student.backend is None,
    )
    if machinery.engine_is_trainer:
        check_engine(machinery, setting.dtype)
    recorder = StepRecorder(
        folder,
        progress,
        lambda: _development_scores(config, models, machinery, trainer.state.global_step),
        config.evaluation.dev_every,
        lambda ids: str(models.tokenizer.decode(list(ids))),
    )
    trainer = DistillationTrainer(
        machinery,
        config.method,
        setting,
        config.engine,
        config.seed,
        folder / "trainer",
        [recorder] if ranks.index() == 0 else [],
    )
    recorder.attach(trainer)
    resume_from = ranks.from_main(complete_checkpoint(folder / "trainer") if ranks.index() == 0 else None)
    if ranks.index() == 0:
        recorder.start_from(resume_from)
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    _save_final(models, trainer, folder)


def _save_final(models: Models, trainer: DistillationTrainer, folder: Path) -> None:
    """Writes `checkpoint/` under a temporary name, renames it, and only then drops the resumable checkpoints."""
    temporary = folder / "checkpoint.tmp"
    if ranks.index() == 0:
        shutil.rmtree(temporary, ignore_errors=True)
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        trainer.save_model(str(temporary))  # gathers the shards: all ranks take part
        (temporary / "training_args.bin").unlink(missing_ok=True)
    elif ranks.index() == 0:
        whole = models.student if models.adapters is None else models.adapters.merge_and_unload()
        whole.save_pretrained(temporary)
    if ranks.index() == 0:
        models.tokenizer.save_pretrained(temporary)
        os.replace(temporary, folder / "checkpoint")
        shutil.rmtree(folder / "trainer", ignore_errors=True)


def _development_scores(config: RunConfig, models: Models, machinery: Machinery, step: int) -> dict[str, float]:
    task = config.evaluation.dev_task
    if task is None:
        return {}
    machinery.weights.push(step)
    length = context_length(models.student)
    evaluated = Evaluated(machinery.engine, models.tokenizer, length, models.stop_ids)
    return {f"{CURVE}{task}": score(config.evaluation, task, evaluated, config.seed).evaluation.score}


def _evaluate(config: RunConfig, folder: Path, record: RunRecord, progress: RunProgress) -> RunRecord:
    """Scores the run on every task of the configuration that its record lacks; trains nothing."""
    setting = config.setting
    untrained = {
        "student": (setting.student, setting.student_revision),
        "teacher": (setting.teacher, setting.teacher_revision),
    }
    name, revision = untrained.get(config.method_name, (str(folder / "checkpoint"), None))
    tokenizer = load_tokenizer(setting.student, setting.student_revision)

    with ExitStack() as stack:

        def load() -> Evaluated:
            source = Source(name, revision, setting.dtype)
            opened = stack.enter_context(open_engine(config.engine, source, check_pair(config), folder))
            return evaluated_source(opened, source, tokenizer)

        evaluated = evaluate_missing(
            record,
            folder,
            config.evaluation,
            tokenizer,
            model_identity(name, revision),
            load,
            begins=lambda task: progress.phase(f"evaluating {task}"),
            done=lambda record: write_record(folder / "record.json", record),
        )
    finished_at = record.finished_at if record.status == "completed" and evaluated is record else _now()
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
        started_at=_now(),
    )


def _provenance(config: RunConfig) -> dict[str, Any]:
    """Of this process; with the GPUs of all ranks."""
    found = collect_provenance(device_of(config))
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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
