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
from harness.files import append_row, write_rows
from harness.results.record import METRICS_FILE, read_metrics
from harness.results.samples import SAMPLES_FILE, CreditSample, Decode, is_sampled, read_samples, sample_row

MARKER = "complete"


@dataclass
class StepLog:
    """What is known of the step that is being made: the trainer writes it, the recorder reads it when the step is
    logged.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    sample: CreditSample | None = None
    update_started: float = 0.0  # when the credit was ready, on the clock of time.perf_counter


class StepRecorder(TrainerCallback):
    """A row per step, a marker per checkpoint, and the progress line."""

    def __init__(
        self,
        folder: Path,
        log: StepLog,
        progress: RunProgress,
        development_scores: Callable[[int], dict[str, float]],
        every: int,
        decode: Decode,
    ) -> None:
        self.path = folder / METRICS_FILE
        self.samples_path = folder / SAMPLES_FILE
        self.log = log
        self.progress = progress
        self.development_scores = development_scores  # of the weights after a step
        self.every = every  # steps between two development scores
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
        last = step == state.max_steps or control.should_training_stop
        if step % self.every == 0 or last:
            row |= self.development_scores(step)
        append_row(self.path, row)
        if self.log.sample is not None and (last or is_sampled(step, state.max_steps)):
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


def cut_rows(folder: Path, checkpoint: Path | None) -> None:
    """Cuts off the rows in the run's folder that the checkpoint does not know of."""
    step = int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else 0
    for name, rows in ((METRICS_FILE, read_metrics(folder)), (SAMPLES_FILE, read_samples(folder))):
        write_rows(folder / name, [row for row in rows if row["step"] <= step])
