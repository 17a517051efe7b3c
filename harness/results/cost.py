"""What the runs of a row cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.results.flops import recorded_flops
from harness.results.record import RunRecord


@dataclass(frozen=True)
class Cost:
    """What a run cost: the mean over the row's completed runs, peak memory the maximum."""

    student_tokens: float
    teacher_tokens: float
    scored_tokens: float
    rollout_s: float
    scoring_s: float
    update_s: float
    evaluation_s: float
    peak_memory_bytes: int
    # estimate: seconds of all phases x the run's GPUs; None: ran on processors, or not recorded
    gpu_hours: float | None
    reference_tokens: float  # the data set's own
    operations: float | None  # estimate (harness.results.flops); None: not recorded of every run

    @property
    def training_s(self) -> float:
        """Wall clock of the training's phases."""
        return self.rollout_s + self.scoring_s + self.update_s


def mean_cost(runs: Sequence[RunRecord]) -> Cost:
    """The mean over completed runs, of the peak memory the maximum."""
    counters = [record.counters for record in runs]
    means = {
        field.name: float(np.mean([getattr(counter, field.name) for counter in counters]))
        for field in dataclasses.fields(Cost)
        if field.name not in ("peak_memory_bytes", "gpu_hours", "operations")
    }
    gpus = [record.provenance.get("gpus") for record in runs]
    seconds = [c.rollout_s + c.scoring_s + c.update_s + c.evaluation_s for c in counters]
    operations = [found for record in runs if (found := recorded_flops(record)) is not None]
    hours = [count * time / 3600 for count, time in zip(gpus, seconds, strict=True) if count]
    return Cost(
        **means,
        peak_memory_bytes=max(counter.peak_memory_bytes for counter in counters),
        gpu_hours=float(np.mean(hours)) if len(hours) == len(runs) else None,
        operations=float(np.mean(operations)) if len(operations) == len(runs) else None,
    )
