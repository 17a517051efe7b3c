"""The distance of a student to its teacher on held-out prompts: the measurement of a run with the least noise.

One completion per prompt by each model at temperature 1, as in training. The student's are drawn from the stream
`distance` (training seed, prompt), which knows no method; the teacher's are cached, and the same for all methods and
seeds. At every position of a completion both models' distributions are whole:

    reverse KL  (1/T) Σ_t KL(π_S(·|s_t) || π_T(·|s_t))   s_t along the student's completion of T tokens
    forward KL  (1/T) Σ_t KL(π_T(·|s_t) || π_S(·|s_t))   s_t along the teacher's

so times T both are unbiased for the KL between the distributions over whole completions. Where the end tokens of both
models are one event in training (setting.termination=map), they are one here. Weights are read from the disk by
transformers, whichever engine trained them: vLLM does not give whole distributions of a large vocabulary.

Shape legend: N positions of some completions, T of one.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.config.settings import RunConfig
from harness.console.progress import RunProgress
from harness.engines.checks import device_of
from harness.files import write_rows
from harness.models.loading import load_model, load_tokenizer, stored_stop_ids
from harness.models.pair import check_pair, ends_of
from harness.numerics.distance import Distances, exact_distances
from harness.results.record import DISTANCE_FILE, Distance, RunRecord
from harness.rollout import RolloutRequest, Sampling
from harness.rollout.hf import HFEngine
from harness.scoring import Completion, ScoreRequest, pad_completions
from harness.scoring.hf import HFScorer
from harness.seeds import seed_of
from harness.training.arguments import training_sampling
from harness.training.guidance import Draw, load_or_make_responses
from harness.training.held_out import HeldOut, held_out_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DEFINITION = 1  # part of the hash: raise it when the numbers mean something else
PIECE_TOKENS = 2**14  # positions whose hidden states exist at a time
TEACHER = "distance:"  # before a prompt's id: another draw than the text that methods train on
_DIGITS = 7  # significant ones of what is stored: float32 weights know no more


def measure_missing(
    config: RunConfig, folder: Path, checkpoint: tuple[str, str | None], record: RunRecord, progress: RunProgress
) -> RunRecord:
    """The record with the distance that the configuration asks for, unless it has it.

    `checkpoint`: folder or Hub id of the student's weights, and their revision. Leaves distance.jsonl in the folder.
    """
    if config.evaluation.distance is None or config.method_name == "teacher":
        return record
    setting = config.setting
    tokenizer = load_tokenizer(setting.student, setting.student_revision)
    stop_ids = stored_stop_ids(setting.student, setting.student_revision, tokenizer)
    if setting.termination == "map":
        stop_ids = ends_of(setting).union
    sampling = training_sampling(setting, stop_ids)
    held_out = held_out_prompts(config, config.evaluation.distance, tokenizer)
    wanted = _hash(config, held_out, sampling)
    known = record.distance is not None and record.distance.distance_hash == wanted
    if known or len(held_out.prompts) < 2:  # one prompt has no interval
        return record
    progress.phase("measuring the distance to the teacher")
    if torch.cuda.is_available():  # a trainer that has ended may hold its models and optimiser until they are collected
        gc.collect()
        torch.cuda.empty_cache()
    student = load_model(*checkpoint, setting.dtype, device_of(config))
    teacher_device = config.engine.teacher_device or device_of(config)
    teacher = load_model(setting.teacher, setting.teacher_revision, setting.dtype, teacher_device)
    rows = _measure(config, (student, teacher), held_out, sampling)
    write_rows(folder / DISTANCE_FILE, [{"distance_hash": wanted, **row} for row in rows])
    return dataclasses.replace(record, distance=_summary(wanted, held_out, rows))


def _hash(config: RunConfig, held_out: HeldOut, sampling: Sampling) -> str:
    """What two measurements must share to be compared; the student and the seed are no part of it."""
    content = {
        "definition": DEFINITION,
        "prompts": [held_out.source, held_out.identity, len(held_out.prompts)],
        "sampling": repr(sampling),
        "teacher": config.setting.teacher_identity(),
        "template": config.setting.chat_template_kwargs,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _measure(
    config: RunConfig, models: tuple[PreTrainedModel, PreTrainedModel], held_out: HeldOut, sampling: Sampling
) -> list[dict[str, Any]]:
    """A row per prompt."""
    vocab_size, batch = check_pair(config), config.engine.rows_per_batch
    student, teacher = (HFEngine(model, vocab_size, rows_per_batch=batch) for model in models)
    scorers = tuple(HFScorer(model, vocab_size, sampling.end_ids) for model in models)
    requests = [
        RolloutRequest(prompt.prompt_id, prompt.ids, seed_of("distance", config.seed, prompt.prompt_id))
        for prompt in held_out.prompts
    ]
    rollouts = student.generate(requests, sampling)
    named = [dataclasses.replace(prompt, prompt_id=TEACHER + prompt.prompt_id) for prompt in held_out.prompts]
    responses = load_or_make_responses(
        config.results_dir / ".cache",
        Draw(config.setting.teacher_identity()),
        teacher,
        named,
        sampling=sampling,
        needed=range(len(named)),
    )
    own = distances_along(scorers, [Completion(r.prompt_ids, r.completion_ids) for r in rollouts], sampling.stop_ids)
    texts = [Completion(prompt.ids, responses.completion_ids[prompt.prompt_id]) for prompt in named]
    theirs = distances_along(scorers, texts, sampling.stop_ids)
    return [
        {
            "prompt_id": rollout.prompt_id,
            "tokens": len(rollout.completion_ids),
            "stop_reason": rollout.stop_reason,
            "reverse": _mean(along.reverse),
            "student_entropy": _mean(along.student_entropy),
            "teacher_entropy": _mean(along.teacher_entropy),
            **_stops(along, rollout.stop_reason == "stop"),
            "teacher_tokens": len(beside.forward),
            "forward": _mean(beside.forward),
        }
        for rollout, along, beside in zip(rollouts, own, theirs, strict=True)
    ]


def distances_along(
    scorers: tuple[HFScorer, ...], completions: Sequence[Completion], stop_ids: tuple[int, ...]
) -> list[Distances]:
    """Of the T positions of each completion."""
    found: list[Distances] = []
    for piece in _pieces(completions):
        mask, _ = pad_completions(piece)
        student, teacher = (scorer.score(piece, ScoreRequest()).whole(mask) for scorer in scorers)
        columns = vars(exact_distances(student, teacher, stop_ids)).values()
        lengths = [len(completion.completion_ids) for completion in piece]
        found += [Distances(*parts) for parts in zip(*(column.split(lengths) for column in columns), strict=True)]
    return found


def _pieces(completions: Sequence[Completion]) -> list[list[Completion]]:
    """In order, as many at a time as PIECE_TOKENS allows, one at least."""
    pieces: list[list[Completion]] = []
    tokens = PIECE_TOKENS
    for completion in completions:
        tokens += len(completion.completion_ids)
        if tokens > PIECE_TOKENS:
            pieces.append([])
            tokens = len(completion.completion_ids)
        pieces[-1].append(completion)
    return pieces


def _stops(along: Distances, ended: bool) -> dict[str, float | None]:
    """The probability of any end token where the student ended, and its mean over the other positions; None where there
    is no such position.
    """
    last = len(along.reverse) - ended
    sides = {"student": along.student_stop, "teacher": along.teacher_stop}
    return {f"{side}_stop_at_end": _mean(values[last:]) if ended else None for side, values in sides.items()} | {
        f"{side}_stop_elsewhere": _mean(values[:last]) if last else None for side, values in sides.items()
    }


def _mean(values: torch.Tensor) -> float:
    return float(f"{float(values.mean()):.{_DIGITS}g}")


def _summary(distance_hash: str, held_out: HeldOut, rows: Sequence[dict[str, Any]]) -> Distance:
    averaged = [key for key in rows[0] if key.startswith(("student_", "teacher_")) and key != "teacher_tokens"]
    known = {key: [row[key] for row in rows if row[key] is not None] for key in averaged}
    return Distance(
        distance_hash=distance_hash,
        prompts_digest=held_out.digest(),
        source=held_out.source,
        reverse=tuple(row["reverse"] for row in rows),
        forward=tuple(row["forward"] for row in rows),
        tokens=tuple(row["tokens"] for row in rows),
        means={key: float(np.mean(values)) for key, values in known.items() if values},
    )
