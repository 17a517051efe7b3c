"""What the page is made of, read from a comparison's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.config.decodings import ORDER_BY
from harness.report.curves import OPERATIONS
from harness.results.collect import FoundRun, Protocols, find_runs, select_evaluations
from harness.results.flops import MODELS, counters_of, known_sizes, training_flops
from harness.results.leaderboard import Leaderboard, build_leaderboard
from harness.results.record import Evaluation, RunRecord, read_metrics
from harness.results.samples import read_samples
from harness.types import UNTRAINED


@dataclass(frozen=True)
class Source:
    """A comparison."""

    folder: Path
    board: Leaderboard
    runs: tuple[FoundRun, ...]  # sorted by label and seed
    protocols: Protocols | None

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Every label, finished or not: the leaderboard's order, then those without a finished run."""
        ranked = [row.label for row in self.board.rows]
        return tuple(dict.fromkeys([*ranked, *(run.record.label for run in self.runs)]))

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The labels that were trained, in the same order."""
        trained = {run.record.label for run in self.runs if run.record.method not in UNTRAINED}
        return tuple(label for label in self.labels if label in trained)

    @cached_property
    def evaluations(self) -> Mapping[str, Mapping[str, Mapping[int, Evaluation]]]:
        """column -> label -> seed -> evaluation, of the completed runs; a task's decodings side by side."""
        by_column: dict[str, dict[str, dict[int, Evaluation]]] = {}
        for column, runs in select_evaluations([run.record for run in self.runs], self.protocols).items():
            for (label, seed), evaluation in runs.items():
                by_column.setdefault(column, {}).setdefault(label, {})[seed] = evaluation
        return by_column

    @cached_property
    def metrics(self) -> Mapping[str, list[list[dict[str, Any]]]]:
        """label -> the metrics.jsonl of its completed runs (of its unfinished ones if none is), in the order of
        seeds, each row with its OPERATIONS.
        """
        return {label: rows for label in self.methods if (rows := self._metrics_of(label))}

    @cached_property
    def samples(self) -> Mapping[str, list[dict[str, Any]]]:
        """label -> samples.jsonl of its run on the lowest seed that has one."""
        found: dict[str, list[dict[str, Any]]] = {}
        for run in self.runs:
            if run.folder is not None and run.record.label not in found and (rows := read_samples(run.folder)):
                found[run.record.label] = rows
        return {label: found[label] for label in self.methods if label in found}

    def is_finished(self, label: str) -> bool:
        """Whether the label has a completed run."""
        return any(row.label == label for row in self.board.rows)

    def first_run(self, label: str, column: str) -> FoundRun | None:
        """The run on the label's lowest seed that has `column` and still has its folder."""
        evaluated = self.evaluations.get(column, {}).get(label, {})
        for run in self.runs:
            if run.record.label == label and run.record.seed in evaluated and run.folder is not None:
                return run
        return None

    def _metrics_of(self, label: str) -> list[list[dict[str, Any]]]:
        runs = [run for run in self.runs if run.record.label == label and run.folder is not None]
        completed = [run for run in runs if run.record.status == "completed"]
        found = [rows for run in completed or runs if run.folder is not None and (rows := read_metrics(run.folder))]
        return [[self._with_operations(row) for row in rows] for rows in found]

    def _with_operations(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with what its step took, where the models' sizes are known."""
        if self._sizes is None:
            return row
        return {**row, OPERATIONS: training_flops(*self._sizes, counters_of([row]))}

    @cached_property
    def _sizes(self) -> tuple[int, int] | None:
        """Parameters of student and teacher; replicates have students of one recipe."""
        setting = self.runs[0].record.setting
        return known_sizes(setting) if set(MODELS) <= setting.keys() else None


def load_source(folder: Path, command: str, protocols: Protocols | None, order_by: str = ORDER_BY) -> Source:
    """Reads the records of a comparison; raises UserError as the leaderboard does."""
    runs = find_runs(folder)
    board = build_leaderboard([run.record for run in runs], command, protocols, order_by=order_by)
    return Source(folder, board, tuple(runs), protocols)


def records_of(source: Source, label: str) -> list[RunRecord]:
    """The records of a label."""
    return [run.record for run in source.runs if run.record.label == label]
