"""Writes metrics.jsonl and samples.jsonl while the Trainer runs, and decides from which checkpoint a killed run goes on.

A checkpoint counts only with the marker `complete`, written last; rows of both files after its step are cut off.
So a run killed at any point, also
during a save, ends with the same weights and rows as one that was never killed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.console.progress import RunProgress
from harness.files import append_row, write_rows
from harness.results.record import METRICS_FILE, read_metrics
from harness.results.samples import SAMPLES_FILE, Decode, is_sampled, read_samples, sample_row

if TYPE_CHECKING:
    from harness.training.trainer import DistillationTrainer

MARKER = "complete"


class StepRecorder(TrainerCallback):
    """A row per step, a marker per checkpoint, and the progress line."""

    def __init__(
        self,
        folder: Path,
        progress: RunProgress,
        development_scores: Callable[[], dict[str, float]],
        every: int,
        decode: Decode,
    ) -> None:
        self.folder = folder
        self.path = folder / METRICS_FILE
        self.samples_path = folder / SAMPLES_FILE
        self.progress = progress
        self.development_scores = development_scores
        self.every = every  # steps between two development scores
        self.decode = decode  # token ids to text
        self._trainer: DistillationTrainer | None = None

    def attach(self, trainer: DistillationTrainer) -> None:
        """The trainer whose step metrics are recorded."""
        self._trainer = trainer

    def start_from(self, checkpoint: Path | None) -> None:
        """Cuts off the rows that the checkpoint does not know of."""
        step = int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else 0
        for path, rows in ((self.path, read_metrics(self.folder)), (self.samples_path, read_samples(self.folder))):
            write_rows(path, [row for row in rows if row["step"] <= step])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Called once after every optimiser step, before a checkpoint is saved."""
        if logs is None or "grad_norm" not in logs or self._trainer is None:
            return  # the summary at the end of training
        step = state.global_step
        row: dict[str, Any] = {"step": step, "grad_norm": logs["grad_norm"], "learning_rate": logs["learning_rate"]}
        row |= self._trainer.metrics
        if step % self.every == 0 or step == state.max_steps:
            row |= self.development_scores()
        append_row(self.path, row)
        if self._trainer.sample is not None and is_sampled(step, state.max_steps):
            append_row(self.samples_path, sample_row(step, self._trainer.sample, self.decode))
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
