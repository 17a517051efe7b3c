"""The pair of models of a run, loaded and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.config.settings import RunConfig
from harness.engines.checks import device_of
from harness.models.adapters import add_lora
from harness.models.loading import load_model, load_tokenizer, mend_generation_config, stop_ids_of
from harness.models.pair import check_pair, ends_of
from harness.models.precision import use_precision
from harness.models.randomness import check_training_mode
from harness.training.ranks import shards


@dataclass(frozen=True)
class Models:
    """The pair, checked to share a vocabulary."""

    student: PreTrainedModel
    teacher: PreTrainedModel | None  # None: it is scored by vLLM, which loads it itself
    tokenizer: PreTrainedTokenizerBase
    # of the student; with setting.termination=map the union, led by the one that stands for all
    stop_ids: tuple[int, ...]
    vocab_size: int
    adapters: Any = None  # peft's view of the student, with setting.lora_rank


def load_models(config: RunConfig) -> Models:
    """Student and teacher on the run's device."""
    setting = config.setting
    vocab_size = check_pair(config)
    tokenizer = load_tokenizer(setting.student, setting.student_revision)
    # Sharded weights are the optimiser's own, so float32; what is gathered to compute with is narrower
    # (trainer.compute_in).
    kept = "float32" if shards() and setting.dtype == "bfloat16" else setting.dtype
    student = load_model(setting.student, setting.student_revision, kept, device_of(config))
    check_training_mode(student, setting.student)
    mend_generation_config(student, setting.student)
    teacher = None
    if config.engine.who("teacher") == "hf":
        teacher_device = config.engine.teacher_device or device_of(config)
        teacher = load_model(setting.teacher, setting.teacher_revision, setting.dtype, teacher_device)
        teacher.requires_grad_(False)
    use_precision(setting.dtype)
    stop_ids = stop_ids_of(student, tokenizer)
    if setting.termination == "map":
        stop_ids = ends_of(setting).union
        student.generation_config.eos_token_id = list(stop_ids)  # in the checkpoint, so that everybody stops there
    adapters = add_lora(student, setting.lora_rank) if setting.lora_rank else None
    return Models(
        student=student,
        teacher=teacher,
        tokenizer=tokenizer,
        stop_ids=stop_ids,
        vocab_size=vocab_size,
        adapters=adapters,
    )
