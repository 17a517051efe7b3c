"""Trains one run from its last complete checkpoint: models, engines and prompts become the Trainer's machinery."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from transformers import TrainerCallback

from harness.config.settings import RunConfig
from harness.console.progress import RunProgress
from harness.engines.opening import Opened, Source, open_engine, open_hf
from harness.evaluation.checkpoint import load_configured, score
from harness.evaluation.model import Drawing, EvaluatedModel
from harness.models.contexts import context_length
from harness.results.record import CURVE, read_metrics
from harness.rollout.weights import CheckedWeights
from harness.scoring.hf import HFScorer
from harness.training import ranks
from harness.training.arguments import training_sampling
from harness.training.budget import Budget
from harness.training.guidance import TeacherResponses, check_responses, load_or_make_responses
from harness.training.loaded import Models, load_models
from harness.training.mechanisms import writers_of
from harness.training.prompts import Prompt, prompt_order, prompts_of
from harness.training.recorder import StepLog, StepRecorder, complete_checkpoint, cut_rows
from harness.training.self_check import SelfCheck, check_served
from harness.training.trainer import DistillationTrainer, Machinery

CACHE_FOLDER = ".cache"  # under results_dir: teacher responses
WIDE = ("float32", "float64")  # types in which two passes of the same weights agree to rounding


def train(config: RunConfig, folder: Path, progress: RunProgress) -> None:
    """Trains from the last complete checkpoint (or the start) and leaves `checkpoint/`."""
    progress.phase("loading")
    models = load_models(config)
    with _opened_student(config, models, folder) as student, _opened_teacher(config, models, folder) as teacher:
        machinery = make_machinery(config, models, student, teacher, progress=progress)
        log = StepLog()
        resume_from = ranks.from_main(complete_checkpoint(folder / "trainer") if ranks.index() == 0 else None)
        callbacks: list[TrainerCallback] = []
        if ranks.index() == 0:
            cut_rows(folder, resume_from)
            callbacks.append(make_recorder(config, models, machinery, log, folder=folder, progress=progress))
        budget = Budget(config.setting, ranks.from_main(read_metrics(folder) if ranks.index() == 0 else []))
        trainer = DistillationTrainer(machinery, config, folder / "trainer", log, callbacks=callbacks, budget=budget)
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        budget.check_spent(trainer.state.global_step)
        save_final(models, trainer, folder, getattr(torch, config.setting.dtype))


def _opened_student(config: RunConfig, models: Models, folder: Path) -> AbstractContextManager[Opened]:
    setting = config.setting
    source = Source(setting.student, setting.student_revision, setting.dtype)
    return open_engine(config.engine, source, models.vocab_size, folder, model=models.student)


def _opened_teacher(config: RunConfig, models: Models, folder: Path) -> AbstractContextManager[Opened]:
    if models.teacher is not None:
        end_ids = training_sampling(config.setting, models.stop_ids).end_ids
        return open_hf(models.teacher, models.vocab_size, config.engine.rows_per_batch, end_ids)
    setting = config.setting
    source = Source(setting.teacher, setting.teacher_revision, setting.dtype)
    return open_engine(config.engine, source, models.vocab_size, folder, role="teacher")


def make_machinery(
    config: RunConfig, models: Models, student: Opened, teacher: Opened, progress: RunProgress
) -> Machinery:
    """What a step is made with, the engine checked against the trainer."""
    assert student.weights is not None
    setting = config.setting
    prompts = prompts_of(setting, models.tokenizer)
    responses = _teacher_responses(config, models, teacher, prompts, progress=progress)
    sampling = training_sampling(setting, models.stop_ids)
    scorer = HFScorer(models.student, models.vocab_size, sampling.end_ids)
    check = SelfCheck(student.engine, scorer, prompts[0], setting.dtype, end_ids=sampling.end_ids)
    weights = student.weights
    if student.backend is None:
        check.difference()
    else:
        check_served(student.backend, models, setting.dtype)
        weights = CheckedWeights(weights, check.report)
    return Machinery(
        student=models.student,
        engine=student.engine,
        student_scorer=scorer,
        teacher_scorer=teacher.scorer,
        prompts=prompts,
        responses=responses,
        stop_ids=models.stop_ids,
        vocab_size=models.vocab_size,
        weights=weights,
        engine_is_trainer=student.backend is None and setting.dtype in WIDE,
    )


def _teacher_responses(
    config: RunConfig, models: Models, teacher: Opened, prompts: Sequence[Prompt], progress: RunProgress
) -> TeacherResponses | None:
    """The teacher's text for every prompt of the run; None unless the method needs it."""
    assert config.method is not None
    if not config.method.needs_teacher_responses():
        return None
    setting = config.setting
    needed = prompt_order(len(prompts), config.seed, setting.steps * setting.prompts_per_step)
    responses = load_or_make_responses(
        config.results_dir / CACHE_FOLDER,
        setting.teacher_identity(),
        teacher.engine,
        prompts,
        sampling=training_sampling(setting, models.stop_ids),
        needed=needed,
        make_bar=progress.bar,
    )
    if "teacher" not in writers_of(config):  # it takes them as prefixes
        texts = [responses.text_of(prompts[index]) for index in dict.fromkeys(needed)]
        check_responses(config.method, texts, setting.steps, setting.min_continuation)
    return responses


def make_recorder(
    config: RunConfig, models: Models, machinery: Machinery, log: StepLog, folder: Path, progress: RunProgress
) -> StepRecorder:
    """The recorder of rank 0, with the development task loaded once."""
    return StepRecorder(
        folder,
        log=log,
        progress=progress,
        development_scores=development_scores(config, models, machinery),
        every=config.evaluation.dev_every,
        decode=lambda ids: str(models.tokenizer.decode(list(ids))),
    )


def development_scores(config: RunConfig, models: Models, machinery: Machinery) -> Callable[[int], dict[str, float]]:
    """Scores the weights after a step on the development task; nothing without one."""
    evaluation = config.evaluation
    tasks = load_configured(evaluation, [evaluation.dev_task] if evaluation.dev_task else [], models.tokenizer)
    model = EvaluatedModel(machinery.engine, models.tokenizer, context_length(models.student), models.stop_ids)

    def scores(step: int) -> dict[str, float]:
        if tasks:
            machinery.weights.push(step)
        results = score(evaluation, tasks, model, Drawing(config.seed))
        return {f"{CURVE}{result.evaluation.task}": result.evaluation.score for result in results}

    return scores


def save_final(models: Models, trainer: DistillationTrainer, folder: Path, dtype: torch.dtype) -> None:
    """Writes `checkpoint/` in `dtype` under a temporary name, renames it, and only then drops the resumable
    checkpoints.
    """
    temporary = folder / "checkpoint.tmp"
    if ranks.index() == 0:
        shutil.rmtree(temporary, ignore_errors=True)
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        gathered = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # all ranks take part
        if ranks.index() == 0:
            models.student.save_pretrained(temporary, state_dict={name: w.to(dtype) for name, w in gathered.items()})
            models.student.config.dtype = dtype  # saving has written that of the shards
            models.student.config.save_pretrained(temporary)
    elif ranks.index() == 0:
        whole = models.student if models.adapters is None else models.adapters.merge_and_unload()
        whole.save_pretrained(temporary)
    if ranks.index() == 0:
        models.tokenizer.save_pretrained(temporary)
        os.replace(temporary, folder / "checkpoint")
        shutil.rmtree(folder / "trainer", ignore_errors=True)
