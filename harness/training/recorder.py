"""Writes metrics.jsonl and samples.jsonl while the Trainer runs, and decides from which checkpoint a killed run goes
on.

A checkpoint counts only with the marker `complete`, written last; rows of both files after its step are cut off. So a
run killed at any point, also during a save, ends with the same weights and rows as one that was never killed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.console.progress import RunProgress
from harness.errors import UserError
from harness.files import append_row, write_rows
from harness.results.record import METRICS_FILE, read_metrics
from harness.results.samples import SAMPLES_FILE, CreditSample, Decode, is_sampled, read_samples, sample_row

MARKER = "complete"
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

    def is_scored(self, step: int, last: int) -> bool:
        """Whether the weights after this step are scored on the development task."""
        return self.scored_every is not None and (step % self.scored_every == 0 or step == last)


class StepRecorder(TrainerCallback):
    """A row per step, a marker per checkpoint, and the progress line."""

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
        row |= self.log.metrics
        if self.log.is_scored(step, state.max_steps):
            row |= self.development_scores(step)
        append_row(self.path, row)
        if self.log.sample is not None and is_sampled(step, state.max_steps):
            append_row(self.samples_path, sample_row(step, self.log.sample, self.decode))
        self.progress.step(step, row)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called when a checkpoint is whole on disk."""
        folder = Path(args.output_dir or "") / f"checkpoint-{state.global_step}"
        with (folder / MARKER).open("w") as marker:
            os.fsync(marker.fileno())


def complete_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in the trainer's folder; half-written ones are deleted."""
    complete: list[Path] = []
    for path in folder.glob("checkpoint-*"):
        if (path / MARKER).exists():
            complete.append(path)
        else:
            shutil.rmtree(path)
    return max(complete, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


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
    step = int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else 0
    for name, rows in ((METRICS_FILE, read_metrics(folder)), (SAMPLES_FILE, read_samples(folder))):
        write_rows(folder / name, [row for row in rows if row["step"] <= step])
