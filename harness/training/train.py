"""Trains one run from its last complete checkpoint: models, engines and prompts become the Trainer's machinery."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor
from transformers import TrainerCallback

from harness.config.settings import RunConfig
from harness.console.progress import RunProgress
from harness.engines.backends import Source
from harness.engines.caches import OPTIMISER_BYTES, rows_per_batch
from harness.engines.opening import Opened, open_engine, open_hf
from harness.evaluation import loading
from harness.evaluation.checkpoint import load_development, score
from harness.evaluation.model import Drawing, EvaluatedModel
from harness.models.adapters import add_lora
from harness.models.contexts import context_length
from harness.models.loading import load_model
from harness.results.record import CURVE, read_metrics
from harness.results.seal import seal
from harness.rollout import RolloutEngine
from harness.rollout.hf import HFEngine, way_of
from harness.rollout.own_cache import AGAIN, ATTENTION
from harness.rollout.weights import CheckedWeights
from harness.scoring.hf import HFScorer
from harness.training import ranks
from harness.training.arguments import training_sampling
from harness.training.budget import Budget
from harness.training.guidance import Draw, TeacherResponses, check_responses, load_or_make_responses
from harness.training.loaded import Models, load_models
from harness.training.mechanisms import writers_of
from harness.training.prompts import Prompt, prompt_order, prompts_of
from harness.training.recorder import (
    CheckpointSealer,
    StepLog,
    StepRecorder,
    check_form,
    complete_checkpoint,
    cut_rows,
)
from harness.training.self_check import SelfCheck, check_served
from harness.training.shared_engine import shared
from harness.training.trainer import DistillationTrainer, Machinery

CACHE_FOLDER = ".cache"  # under results_dir: teacher responses
WIDE = ("float32", "float64")  # types in which two passes of the same weights agree to rounding


def train(config: RunConfig, folder: Path, progress: RunProgress) -> None:
    """Trains from the last complete checkpoint (or the start) and leaves `checkpoint/`."""
    progress.phase("loading")
    models = load_models(config)
    with _opened_student(config, models, folder) as student, _opened_teacher(config, models, folder) as teacher:
        machinery = make_machinery(config, models, student, teacher, progress=progress)
        log = StepLog(scored_every=config.evaluation.dev_every if config.evaluation.dev_task else None)
        resume_from = ranks.from_main(complete_checkpoint(folder / "trainer") if ranks.index() == 0 else None)
        check_form(resume_from, ranks.shards())
        callbacks: list[TrainerCallback] = [CheckpointSealer(folder)]
        if log.scored_every and resume_from is None:
            machinery.weights.push(0)  # all ranks: rank 0 is about to sample
        if ranks.index() == 0:
            cut_rows(folder, resume_from)
            recorder = make_recorder(config, models, machinery, log, folder=folder, progress=progress)
            callbacks.append(recorder)
            if resume_from is None:
                recorder.score_start()
        budget = Budget(config.setting, ranks.from_main(read_metrics(folder) if ranks.index() == 0 else []))
        trainer = DistillationTrainer(machinery, config, folder / "trainer", log, callbacks=callbacks, budget=budget)
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        budget.check_spent(trainer.state.global_step)
        save_final(config, models, trainer, folder)


def _opened_student(config: RunConfig, models: Models, folder: Path) -> AbstractContextManager[Opened]:
    setting = config.setting
    source = Source(setting.student, setting.student_revision, setting.dtype)
    longest = longest_sequence(config, models)
    trained = sum(p.numel() for p in models.student.parameters() if p.requires_grad)
    later = OPTIMISER_BYTES * trained // (ranks.count() if ranks.shards() else 1)
    rows = rows_per_batch(config.engine, models.student, longest, later)
    engine = dataclasses.replace(config.engine, rows_per_batch=rows)
    return open_engine(engine, source, models.vocab_size, folder, longest=longest, role="student", model=models.student)


def _opened_teacher(config: RunConfig, models: Models, folder: Path) -> AbstractContextManager[Opened]:
    if models.teacher is not None:
        end_ids = training_sampling(config.setting, models.stop_ids).end_ids
        longest = config.setting.max_prompt_tokens + config.setting.max_new_tokens
        rows = rows_per_batch(config.engine, models.teacher, longest)
        return open_hf(models.teacher, models.vocab_size, rows, end_ids)
    setting = config.setting
    source = Source(setting.teacher, setting.teacher_revision, setting.dtype)
    longest = longest_sequence(config, models)
    return open_engine(config.engine, source, models.vocab_size, folder, longest=longest, role="teacher")


def longest_sequence(config: RunConfig, models: Models) -> int:
    """Positions of a prompt and its completion in this run, at most: what engines are opened for.

    A teacher's prefix may be as long as what the student then writes; an engine that scores writes a token more.
    """
    setting, method, evaluation = config.setting, config.method, config.evaluation
    assert method is not None
    written = setting.max_new_tokens * (2 if method.needs_teacher_responses() else 1)
    found = [setting.max_prompt_tokens + written]
    if "reference" in writers_of(config):
        prompts = prompts_of(setting, models.tokenizer)
        found += [len(prompt.ids) + len(prompt.reference_ids or ()) for prompt in prompts]
    if evaluation.dev_task:
        tasks = load_development(evaluation, models.tokenizer)
        found.append(loading.longest_sequence(tasks.values()))
    return max(found) + 1


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
        engine_is_trainer=student.backend is None and setting.dtype in WIDE and _steps_as_it_scores(student.engine),
    )


def _steps_as_it_scores(engine: RolloutEngine) -> bool:
    """Whether a sampled token's log-prob is the scoring pass's but for rounding.

    Not by a model's own cache, whose steps are other code than its whole pass: in Nemotron-H and Zamba2 they leave out
    a clamp (time_step_min) and are some 5e-4 nats off.
    """
    return isinstance(engine, HFEngine) and way_of(engine) in (ATTENTION, AGAIN)


def _teacher_responses(
    config: RunConfig, models: Models, teacher: Opened, prompts: Sequence[Prompt], progress: RunProgress
) -> TeacherResponses | None:
    """The teacher's text for every prompt of the run; None unless the method needs it."""
    assert config.method is not None
    if not config.method.needs_teacher_responses():
        return None
    setting = config.setting
    needed = prompt_order(len(prompts), config.seed, setting.steps * setting.prompts_per_step)
    with shared(teacher.engine) as engine:
        responses = load_or_make_responses(
            config.results_dir / CACHE_FOLDER,
            Draw(setting.teacher_identity(), None if setting.teacher_responses == "shared" else config.seed),
            engine,
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
        decode=lambda ids: str(models.tokenizer.decode(list(ids))),
    )


def development_scores(config: RunConfig, models: Models, machinery: Machinery) -> Callable[[int], dict[str, float]]:
    """Scores the weights after a step on the development task; nothing without one."""
    evaluation = config.evaluation
    tasks = load_development(evaluation, models.tokenizer)
    context, room = context_length(models.student), longest_sequence(config, models)
    opened_for = context if config.engine.who("student") == "hf" else min(context, room)
    model = EvaluatedModel(machinery.engine, models.tokenizer, context, models.stop_ids, opened_for=opened_for)

    def scores(step: int) -> dict[str, float]:
        if tasks:
            machinery.weights.push(step)
        results = score(evaluation, tasks, model, Drawing(config.seed))
        return {f"{CURVE}{result.evaluation.task}": result.evaluation.score for result in results}

    return scores


def save_final(config: RunConfig, models: Models, trainer: DistillationTrainer, folder: Path) -> None:
    """Writes `checkpoint/` in the Setting's type under a temporary name, renames it, and only then drops the resumable
    checkpoints.
    """
    temporary = folder / "checkpoint.tmp"
    if ranks.index() == 0:
        shutil.rmtree(temporary, ignore_errors=True)
    try:
        _write_final(config, models, trainer, temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if ranks.index() == 0:
        os.replace(temporary, folder / "checkpoint")
        shutil.rmtree(folder / "trainer", ignore_errors=True)


def _write_final(config: RunConfig, models: Models, trainer: DistillationTrainer, folder: Path) -> None:
    if trainer.is_fsdp_enabled:
        gathered = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # all ranks take part
        if ranks.index() == 0:
            save_gathered(config, models, gathered, folder)
    elif ranks.index() == 0:
        whole = models.student if models.adapters is None else models.adapters.merge_and_unload()
        whole.save_pretrained(folder)
    if ranks.index() == 0:
        models.tokenizer.save_pretrained(folder)
        seal(folder)


def save_gathered(config: RunConfig, models: Models, gathered: dict[str, Tensor], folder: Path) -> None:
    """The weights of a sharded student, as float32 or wider, in the Setting's type; adapters are merged first, into a
    second copy on the CPU, since the student's own weights lie in pieces.
    """
    setting, student = config.setting, models.student
    dtype = getattr(torch, setting.dtype)
    if models.adapters is not None:
        kept = str(student.dtype).removeprefix("torch.")
        whole = load_model(setting.student, setting.student_revision, kept)
        adapters = add_lora(whole, setting.lora_rank)
        with torch.no_grad():
            for name, weight in whole.named_parameters():
                weight.copy_(gathered[name])
        gathered = adapters.merge_and_unload().state_dict()
        whole.generation_config, student = student.generation_config, whole
    student.save_pretrained(folder, state_dict={name: weight.to(dtype) for name, weight in gathered.items()})
    student.config.dtype = dtype  # saving has written that of the shards
    student.config.save_pretrained(folder)
