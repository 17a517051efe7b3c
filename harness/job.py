"""One run from configuration to finished record: train (or resume), save, evaluate. Failures become rows, never tracebacks of the comparison."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.config import RunConfig
from harness.errors import UserError
from harness.evaluation import TaskResult, evaluate, protocol_hashes
from harness.guidance import load_or_make_responses
from harness.models import context_length, load_config, load_model, load_tokenizer, shared_vocab_size, stop_ids_of
from harness.progress import RunProgress
from harness.prompts import load_prompts, prompt_order
from harness.provenance import collect_provenance, peak_memory_bytes, reset_peak_memory
from harness.recorder import StepRecorder, complete_checkpoint, read_metrics, read_samples
from harness.results.record import Counters, RunRecord, load_record, write_record
from harness.rollout import RolloutEngine, RolloutRequest, Sampling
from harness.rollout.hf import HFEngine
from harness.scoring import Completion, ScoreRequest
from harness.scoring.hf import HFScorer
from harness.seeds import seed_of
from harness.trainer import DistillationTrainer, Machinery, training_sampling

CACHE_FOLDER = ".cache"  # under results_dir: teacher responses
MISMATCH_LIMIT = {
    "float64": 1e-6,
    "float32": 1e-3,
    "bfloat16": 0.5,
}  # nats; engine against trainer on one fixed sequence


def run_job(config: RunConfig) -> RunRecord:
    """Brings the run to its end, from wherever an earlier attempt left it; always leaves a record."""
    folder = config.run_folder()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            return _run_locked(config, folder)
    except Timeout:
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
        if config.method is not None and not (folder / "checkpoint").exists():
            train(config, folder, progress)
        record = _evaluate_missing(config, folder, record, progress)
    except Exception as error:  # a failed run is a row with a reason
        (folder / "error.log").write_text(traceback.format_exc())
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        record = dataclasses.replace(record, status="failed", reason=reason, finished_at=_now())
    record = dataclasses.replace(record, counters=_counters(folder, record.counters))
    write_record(path, record)
    progress.finish(record.status)
    return record


def check_leftovers(folder: Path) -> None:
    """Reads what an earlier attempt left; a file that cannot be gone on with is a UserError that names it and its line."""
    if (folder / "record.json").exists():
        load_record(folder / "record.json")
    read_metrics(folder)
    read_samples(folder)
    for name in ("items.jsonl", "texts.jsonl"):
        for _ in _read_rows(folder / name):
            pass


@dataclass(frozen=True)
class Models:
    """The pair, checked to share a vocabulary."""

    student: PreTrainedModel
    teacher: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stop_ids: tuple[int, ...]
    vocab_size: int


def check_pair(config: RunConfig) -> int:
    """The shared vocabulary's size; reads tokenizers and configurations only."""
    setting = config.setting
    sides = [(setting.student, setting.student_revision), (setting.teacher, setting.teacher_revision)]
    student, teacher = [(load_tokenizer(*side), load_config(*side)) for side in sides]
    return shared_vocab_size(student, teacher, setting.top_k)


def load_models(config: RunConfig) -> Models:
    """Student and teacher on the run's device."""
    setting = config.setting
    vocab_size = check_pair(config)
    tokenizer = load_tokenizer(setting.student, setting.student_revision)
    student = load_model(setting.student, setting.student_revision, setting.dtype, device_of(config))
    teacher = load_model(setting.teacher, setting.teacher_revision, setting.dtype, device_of(config))
    teacher.requires_grad_(False)
    return Models(student, teacher, tokenizer, stop_ids_of(student, tokenizer), vocab_size)


def device_of(config: RunConfig) -> str:
    """The device's name in torch."""
    if config.engine.device != "auto":
        return config.engine.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def train(config: RunConfig, folder: Path, progress: RunProgress) -> None:
    """Trains from the last complete checkpoint (or the start) and leaves `checkpoint/`."""
    assert config.method is not None
    progress.phase("loading")
    models = load_models(config)
    setting = config.setting
    prompts = load_prompts(
        setting.prompts, models.tokenizer, split=setting.prompts_split, max_tokens=setting.max_prompt_tokens
    )
    responses = None
    if config.method.needs_teacher_responses():
        engine = HFEngine(models.teacher, models.vocab_size)
        sampling = training_sampling(setting, models.stop_ids)
        cache = config.results_dir / CACHE_FOLDER
        needed = prompt_order(len(prompts), config.seed, setting.steps * setting.prompts_per_step)
        teacher = setting.teacher_identity()
        responses = load_or_make_responses(cache, teacher, engine, prompts, sampling, needed, progress.bar)
    machinery = Machinery(
        student=models.student,
        engine=HFEngine(models.student, models.vocab_size),
        student_scorer=HFScorer(models.student, models.vocab_size),
        teacher_scorer=HFScorer(models.teacher, models.vocab_size),
        prompts=prompts,
        responses=responses,
        stop_ids=models.stop_ids,
        vocab_size=models.vocab_size,
    )
    check_engine(machinery, setting.dtype)
    recorder = StepRecorder(
        folder,
        progress,
        lambda: _development_scores(config, models, machinery),
        config.evaluation.dev_every,
        lambda ids: str(models.tokenizer.decode(list(ids))),
    )
    trainer = DistillationTrainer(
        machinery, config.method, setting, config.engine, config.seed, folder / "trainer", [recorder]
    )
    recorder.attach(trainer)
    resume_from = complete_checkpoint(folder / "trainer")
    recorder.start_from(resume_from)
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    _save_final(models, folder)


def check_engine(machinery: Machinery, dtype: str) -> float:
    """Start-up self-check: engine and trainer score one fixed sequence; returns the largest difference in log-prob, nats."""
    prompt = machinery.prompts[0]
    request = RolloutRequest(prompt.prompt_id, prompt.ids, seed_of("self_check"))
    rollout = machinery.engine.generate([request], Sampling(max_new_tokens=16))[0]
    scored = machinery.student_scorer.score([Completion(rollout.prompt_ids, rollout.completion_ids)], ScoreRequest())
    difference = (scored.signal.logprobs[0] - torch.tensor(rollout.logprobs)).abs().max().item()
    if not difference <= MISMATCH_LIMIT[dtype]:
        raise RuntimeError(
            f"rollout engine and trainer disagree by {difference:.3g} nats on one sequence, the limit is {MISMATCH_LIMIT[dtype]}"
        )
    return difference


def _save_final(models: Models, folder: Path) -> None:
    """Writes `checkpoint/` under a temporary name, renames it, and only then drops the resumable checkpoints."""
    temporary = folder / "checkpoint.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    models.student.save_pretrained(temporary)
    models.tokenizer.save_pretrained(temporary)
    os.replace(temporary, folder / "checkpoint")
    shutil.rmtree(folder / "trainer", ignore_errors=True)


def _development_scores(config: RunConfig, models: Models, machinery: Machinery) -> dict[str, float]:
    task = config.evaluation.dev_task
    if task is None:
        return {}
    return {f"eval/{task}": _score(config, task, models.student, machinery.engine, models.tokenizer).evaluation.score}


def protocol_of(config: RunConfig, task: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The protocol hash of a task in this configuration; reads the task's data, runs no model."""
    options = _task_options(config, task)
    return protocol_hashes([task], tokenizer, data_dir=config.evaluation.data_dir, **options)[task]


def _task_options(config: RunConfig, task: str) -> dict[str, Any]:
    evaluation = config.evaluation
    generation = {**evaluation.sampling.get("all", {}), **evaluation.sampling.get(task, {})}
    if task in evaluation.max_new_tokens:
        generation["max_gen_toks"] = evaluation.max_new_tokens[task]
    return {"samples": evaluation.samples.get(task), "generation": generation or None}


def _score(
    config: RunConfig,
    task: str,
    model: PreTrainedModel,
    engine: RolloutEngine,
    tokenizer: PreTrainedTokenizerBase,
) -> TaskResult:
    (result,) = evaluate(
        engine,
        tokenizer,
        [task],
        run_seed=config.seed,
        max_length=context_length(model),
        data_dir=config.evaluation.data_dir,
        stop_ids=stop_ids_of(model, tokenizer),
        quiet=True,
        **_task_options(config, task),
    )
    return result


def _evaluate_missing(config: RunConfig, folder: Path, record: RunRecord, progress: RunProgress) -> RunRecord:
    """Scores the run on every task of the configuration that its record lacks; trains nothing."""
    setting, tasks = config.setting, config.evaluation.tasks
    untrained = {
        "student": (setting.student, setting.student_revision),
        "teacher": (setting.teacher, setting.teacher_revision),
    }
    name, revision = untrained.get(config.method_name, (str(folder / "checkpoint"), None))
    tokenizer = load_tokenizer(setting.student, setting.student_revision)
    have = {(e.task, e.protocol_hash) for e in record.evaluations}
    missing = [task for task in tasks if (task, protocol_of(config, task, tokenizer)) not in have]
    if missing:
        started = time.perf_counter()
        model = load_model(name, revision, setting.dtype, device_of(config))
        engine = HFEngine(model, check_pair(config))
        for task in missing:
            progress.phase(f"evaluating {task}")
            result = _score(config, task, model, engine, tokenizer)
            _write_rows(folder, result)
            record = dataclasses.replace(record, evaluations=(*record.evaluations, result.evaluation))
        seconds = record.counters.evaluation_s + time.perf_counter() - started
        record = dataclasses.replace(record, counters=dataclasses.replace(record.counters, evaluation_s=seconds))
    finished_at = record.finished_at if record.status == "completed" and not missing else _now()
    return dataclasses.replace(record, status="completed", reason="", finished_at=finished_at)


def _write_rows(folder: Path, result: TaskResult) -> None:
    """Replaces the rows of this task and protocol in items.jsonl and texts.jsonl, atomically."""
    key = (result.evaluation.task, result.evaluation.protocol_hash)
    rows = {
        "texts.jsonl": [{**row, "protocol_hash": key[1]} for row in result.texts],
        "items.jsonl": [dataclasses.asdict(row) for row in result.items],
    }
    for name, new in rows.items():
        kept = [row for row in _read_rows(folder / name) if (row["task"], row["protocol_hash"]) != key]
        temporary = folder / f".{name}.tmp"
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [*kept, *new]))
        os.replace(temporary, folder / name)


def _read_rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open(newline="\n") as lines:  # a sampled text may hold Unicode's other line separators
        for number, line in enumerate(lines, 1):
            try:
                yield json.loads(line)
            except ValueError:
                raise UserError(
                    f"{path}, line {number}: not valid JSON; delete the file to have it evaluated again."
                ) from None


def _new_record(config: RunConfig) -> RunRecord:
    return RunRecord(
        method=config.method_name,
        knobs=config.knobs(),
        changed_knobs=config.changed_knobs(),
        setting=dataclasses.asdict(config.setting),
        training_hash=config.setting.training_hash(),
        seed=config.seed,
        status="started",
        engine=config.engine.name,
        provenance=collect_provenance(device_of(config)),
        started_at=_now(),
    )


def _counters(folder: Path, before: Counters) -> Counters:
    """Sums over metrics.jsonl, so that a resumed run counts every step once."""
    rows = read_metrics(folder)

    def total(key: str) -> float:
        return sum(row.get(key, 0.0) for row in rows)

    peak = before.peak_memory_bytes if before.steps == len(rows) and before.peak_memory_bytes else peak_memory_bytes()
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
