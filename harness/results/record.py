"""RunRecord: everything that a table needs to know of one run, as one small JSON file.

A run folder is `results/<setting>-<hash8>/<method>[-<hash8 of changed knobs>]/seed<k>/` and holds

    record.json      this record
    metrics.jsonl    a row per optimiser step
    samples.jsonl    a training completion of a handful of steps, with the credit of each token
    items.jsonl      a row per evaluated problem x sample: ItemRow
    texts.jsonl      the sampled texts, keyed like items.jsonl
    checkpoint/      the final weights, Hugging Face format
"""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from harness.errors import UserError
from harness.files import read_rows, write_json

SCHEMA_VERSION = 1
Status = Literal["started", "completed", "failed"]
METRICS_FILE = "metrics.jsonl"
ITEMS_FILE, TEXTS_FILE = "items.jsonl", "texts.jsonl"
CURVE = "eval/"  # a metric of this prefix is a development score, which only some steps have


@dataclass(frozen=True)
class Counters:
    """What the run cost."""

    steps: int = 0  # optimiser updates
    student_tokens: int = 0  # written by the student in training rollouts
    teacher_tokens: int = 0  # written by the teacher and used (prefixes, teacher completions)
    scored_tokens: int = 0  # tokens that the teacher scored
    rollout_s: float = 0.0  # seconds per phase, wall clock
    scoring_s: float = 0.0
    update_s: float = 0.0
    evaluation_s: float = 0.0
    peak_memory_bytes: int = 0  # resident, of the process
    peak_gpu_memory_bytes: int = 0  # of the GPU that held most, of any rank; 0: no GPU


@dataclass(frozen=True)
class Evaluation:
    """The outcome of one task under one protocol."""

    task: str
    protocol_hash: str  # of the task, its data, prompts and sampling: rows are compared only where it is equal
    problems: int
    samples: int  # per problem
    score: float  # mean over problems and samples, in [0, 1]
    truncated_frac: float  # samples that hit the length limit
    mean_tokens: float  # per sample
    correct: tuple[int, ...]  # successes per problem, in the order of the task's documents; what intervals are made of
    # the task's own: pass_at_k, maj_at_k, sandboxed (0: not) and so on
    metrics: dict[str, float] = field(default_factory=dict)
    # per problem 1 if its most frequent answer is right, else 0 (maj@k); None where answers are not voted on
    majority: tuple[int, ...] | None = None


@dataclass(frozen=True)
class RunRecord:
    """One run of one method on one seed, finished or not."""

    method: str  # name in baselines/, or "student" / "teacher" (evaluated only)
    knobs: dict[str, Any]  # all knobs of the method
    changed_knobs: dict[str, Any]  # those that differ from the method's defaults
    setting: dict[str, Any]  # the whole Setting
    training_hash: str  # hash of the Setting: what a comparison keeps equal
    seed: int
    status: Status
    reason: str = ""  # why it failed, in one line
    counters: Counters = field(default_factory=Counters)
    evaluations: tuple[Evaluation, ...] = ()  # at most one for a (task, protocol_hash)
    engine: str = "hf"
    # filled when a comparison is published without its metrics.jsonl: the mean of each metric over the second half of
    # the steps, each development score as KEY@STEP, and cost/flops
    training: dict[str, float] = field(default_factory=dict)
    # git commit, inputs and source by content, versions, hardware
    provenance: dict[str, Any] = field(default_factory=dict)
    started_at: str = ""  # UTC, ISO 8601
    finished_at: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def label(self) -> str:
        """The row's name in a table: the method, and its changed knobs."""
        changed = ", ".join(f"{key}={value}" for key, value in sorted(self.changed_knobs.items()))
        return f"{self.method} ({changed})" if changed else self.method


def write_record(path: Path, record: RunRecord) -> None:
    """Writes `record` as JSON, atomically."""
    write_json(path, record_as_dict(record))


def record_as_dict(record: RunRecord) -> dict[str, Any]:
    """As it is stored: a counter of a GPU only where one was used, as records of other machines have none."""
    content = dataclasses.asdict(record)
    if not record.counters.peak_gpu_memory_bytes:
        del content["counters"]["peak_gpu_memory_bytes"]
    return content


def load_record(path: Path) -> RunRecord:
    """Reads a record; a file that is not one is a UserError that names it."""
    try:
        return record_from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not a valid run record ({error}); {way_out(path)}.") from error


def way_out(path: Path) -> str:
    """Of a file in a run's folder that cannot be read."""
    return f"delete the folder {path.parent} to run it again"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl in order of step, none without the file; UserError names a
    line that is none.
    """
    path = folder / METRICS_FILE
    rows = []
    for number, row in read_rows(path, torn_last_line="drop", way_out=way_out(path), missing_ok=True):
        if not isinstance(row.get("step"), int):
            raise UserError(f"{path}, line {number}: not a row of metrics, which has a step; {way_out(path)}.")
        rows.append(row)
    return sorted(rows, key=lambda row: row["step"])


def utc_now() -> str:
    """The time as records have it, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def record_from_dict(raw: dict[str, Any]) -> RunRecord:
    """Builds a RunRecord from parsed JSON; raises ValueError on an unknown schema, field or status."""
    version = raw.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema_version is {version!r}, this version of the harness reads {SCHEMA_VERSION}")
    if raw.get("status") not in typing.get_args(Status):
        raise ValueError(f"status is {raw.get('status')!r}")
    evaluations = tuple(_evaluation_from_dict(row) for row in raw["evaluations"])
    return RunRecord(**{**raw, "counters": Counters(**raw["counters"]), "evaluations": evaluations})


def _evaluation_from_dict(raw: dict[str, Any]) -> Evaluation:
    majority = raw.get("majority")
    return Evaluation(
        **{**raw, "correct": tuple(raw["correct"]), "majority": None if majority is None else tuple(majority)}
    )


@dataclass(frozen=True)
class ItemRow:
    """One evaluated sample; a line of items.jsonl."""

    task: str
    protocol_hash: str
    item_id: str  # the task's own id of the problem
    repeat: int  # which of the samples of this problem
    correct: float  # 0 or 1
    tokens: int  # written by the model
    stop_reason: str  # "stop" | "length"
