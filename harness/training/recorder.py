"""Writes metrics.jsonl and samples.jsonl while the Trainer runs, and decides from which checkpoint a killed run goes
on.

A checkpoint counts only if it is sealed and as it was then (harness.results.seal); rows of both files after its step
are cut off. So a run killed at any point, also during a save, ends with the same weights and rows as one that was never
killed, and so does one whose newest checkpoint was damaged.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.console.progress import RunProgress
from harness.errors import UserError
from harness.files import append_row, write_rows
from harness.results.record import CURVE, METRICS_FILE, START, read_metrics
from harness.results.samples import SAMPLES_FILE, CreditSample, Decode, is_sampled, read_samples, sample_row
from harness.results.seal import damage_of, has_digests, is_sealed, seal
from harness.training import ranks

SHARDED_WEIGHTS = "pytorch_model_fsdp.bin"  # accelerate's, in a checkpoint of a run under FSDP


@dataclass
class StepLog:
    """What is known of the step that is being made: the trainer writes it, the recorder reads it when the step is
    logged.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    sample: CreditSample | None = None
    update_started: float = 0.0  # when the credit was ready, on the clock of time.perf_counter
    scored_every: int | None = None  # steps between two development scores; None: there are none

    def is_scored(self, step: int, last: bool) -> bool:
        """Whether the weights after this step are scored on the development task."""
        return self.scored_every is not None and (step % self.scored_every == 0 or last)


class StepRecorder(TrainerCallback):
    """A row per step, and the progress line."""

    def __init__(
        self,
        folder: Path,
        log: StepLog,
        progress: RunProgress,
        development_scores: Callable[[int], dict[str, float]],
        decode: Decode,
    ) -> None:
        self.path = folder / METRICS_FILE
        self.samples_path = folder / SAMPLES_FILE
        self.log = log
        self.progress = progress
        self.development_scores = development_scores  # of the weights after a step
        self.decode = decode  # token ids to text
        self.start: dict[str, float] = {}  # development scores before the first step

    def score_start(self) -> None:
        """Scores the student that the run begins with: where its learning curve starts."""
        if self.log.scored_every is not None:
            scores = self.development_scores(0)
            self.start = {f"{START}{key.removeprefix(CURVE)}": score for key, score in scores.items()}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Called once after every optimiser step, before a checkpoint is saved."""
        if logs is None or "grad_norm" not in logs:
            return  # the summary at the end of training
        step = state.global_step
        row: dict[str, Any] = {"step": step, "grad_norm": logs["grad_norm"], "learning_rate": logs["learning_rate"]}
        row |= self.log.metrics | (self.start if step == 1 else {})
        last = step == state.max_steps or control.should_training_stop
        if self.log.is_scored(step, last):
            row |= self.development_scores(step)
        append_row(self.path, row)
        if self.log.sample is not None and (last or is_sampled(step, state.max_steps)):
            append_row(self.samples_path, sample_row(step, self.log.sample, self.decode))
        self.progress.step(step, row)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called when the checkpoint is whole on disk and sealed."""
        self.progress.saved(state.global_step)


class CheckpointSealer(TrainerCallback):
    """Seals every checkpoint (harness.results.seal). Every rank has one: each writes files of its own into it."""

    def __init__(self, folder: Path) -> None:
        self.appended = [folder / METRICS_FILE, folder / SAMPLES_FILE]

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called when this rank's files are on disk."""
        ranks.wait_for_all()
        if ranks.index() == 0:
            seal(Path(args.output_dir or "") / f"checkpoint-{state.global_step}", self.appended)


def complete_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in the trainer's folder. Half-written ones are deleted; so are damaged ones, which is
    said, as it is where one cannot be checked.
    """
    for path in sorted(_checkpoints(folder), key=_step_of, reverse=True):
        if not is_sealed(path):
            shutil.rmtree(path)
        elif problem := damage_of(path, folder.parent):
            print(f"warning: {path} is damaged ({problem}) and was deleted; going on from before it.", file=sys.stderr)
            shutil.rmtree(path)
        else:
            if not has_digests(path):
                print(f"note: {path} was saved without digests: its content is not checked.", file=sys.stderr)
            return path
    return None


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def check_form(checkpoint: Path | None, sharded: bool) -> None:
    """UserError where a checkpoint of cut weights is to be gone on with by whole ones, or the other way round."""
    if checkpoint is None or (checkpoint / SHARDED_WEIGHTS).exists() == sharded:
        return
    there, here = ("cut over ranks by FSDP2", "whole") if not sharded else ("whole", "cut over ranks by FSDP2")
    raise UserError(
        f"{checkpoint} was saved with the weights {there} and cannot be gone on with while they are {here}; give the "
        "launch.accelerate_config of before (any number of ranks), or fresh=true."
    )


def cut_rows(folder: Path, checkpoint: Path | None) -> None:
    """Cuts off the rows in the run's folder that the checkpoint does not know of."""
    step = _step_of(checkpoint) if checkpoint else 0
    for name, rows in ((METRICS_FILE, read_metrics(folder)), (SAMPLES_FILE, read_samples(folder))):
        write_rows(folder / name, [row for row in rows if row["step"] <= step])
