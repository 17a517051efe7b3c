"""RunRecord: everything that a table needs to know of one run, as one small JSON file.

A run folder is `results/<setting>-<hash8>/<method>[-<hash8 of changed knobs>]/seed<k>/` and holds

    record.json      this record
    metrics.jsonl    a row per optimiser step
    samples.jsonl    a training completion of a handful of steps, with the credit of each token
    items.jsonl      a row per evaluated problem x sample: ItemRow
    texts.jsonl      the sampled texts, keyed like items.jsonl
    distance.jsonl   a row per held-out prompt: the distance to the teacher
    checkpoint/      the final weights, Hugging Face format
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from harness.config.decodings import OWN, column_of
from harness.errors import UserError
from harness.files import write_json
from harness.results.schema import checked_rows, parse, wrong_row
from harness.types import UNTRAINED

SCHEMA_VERSION = 1
Status = Literal["started", "completed", "failed"]
METRICS_FILE = "metrics.jsonl"
ITEMS_FILE, TEXTS_FILE = "items.jsonl", "texts.jsonl"
DISTANCE_FILE = "distance.jsonl"
_SUBSET = re.compile(r" \(\d+ of \d+\)$")
CURVE = "eval/"  # a metric of this prefix is a development score, which only some steps have
START = "start/"  # likewise, of the student before the first step: in the row of step 1
Row = TypeVar("Row")  # of some table


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
    reference_tokens: int = 0  # the data set's own, used; older records have them among teacher_tokens
    student_scored_tokens: int = 0  # tokens that the student scored in a pass of its own, beside sampling and update
    peak_gpu_memory_bytes: int = 0  # of the GPU that held most, of any rank; 0: no GPU
    operations: float = 0.0  # of the training, estimated by harness.results.flops; 0: not known


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
    # the name of the protocol's decoding (harness.config.decodings); "": the task's own
    decoding: str = OWN
    engine: str = ""  # who drew its samples: hf, vllm or server; "": of an older record, whose engine it is

    @property
    def column(self) -> str:
        """The name of its column in a table: `arithmetic`, or `arithmetic@greedy`."""
        return column_of(self.task, self.decoding)


@dataclass(frozen=True)
class Distance:
    """How far a student is from its teacher on held-out prompts (harness.training.distance)."""

    distance_hash: str  # of how it was measured: values are compared only where it is equal
    prompts_digest: str  # of the prompts, which another seed may have others of; methods share them
    source: str  # of the prompts, in words
    # nats per token, prompt by prompt; what intervals are made of
    reverse: tuple[float, ...]  # KL(student || teacher) along the student's own sample
    forward: tuple[float, ...]  # KL(teacher || student) along the teacher's sample
    tokens: tuple[int, ...]  # of the student's samples, end token included
    # over prompts: entropies of both models, and their probability of ending where the sample ended and elsewhere;
    # without a place of that kind the key is absent
    means: dict[str, float]


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
    engine: str = "hf"  # who wrote the completions that it was trained on; of what is evaluated only, who drew those
    # filled when a comparison is published without its metrics.jsonl: the mean of each metric over the second half of
    # the steps, each development score as KEY@STEP, and cost/flops
    training: dict[str, float] = field(default_factory=dict)
    # git commit, inputs and source by content, versions, hardware
    provenance: dict[str, Any] = field(default_factory=dict)
    started_at: str = ""  # UTC, ISO 8601
    finished_at: str = ""
    distance: Distance | None = None  # None: not measured
    teacher_engine: str = ""  # who scored the teacher; "": nothing was trained, or an older record, which does not say
    schema_version: int = SCHEMA_VERSION

    @property
    def label(self) -> str:
        """The row's name in a table: the method, and its changed knobs."""
        changed = ", ".join(f"{key}={value}" for key, value in sorted(self.changed_knobs.items()))
        return f"{self.method} ({changed})" if changed else self.method

    @property
    def is_trained(self) -> bool:
        """Whether this row was trained here: neither an untrained side of a pair nor a stored checkpoint."""
        return self.method not in UNTRAINED and "steps" in self.setting

    def drawn_by(self, evaluation: Evaluation) -> str:
        """The engine that drew the samples of one of its evaluations."""
        return evaluation.engine or self.engine


def engines_of(records: Iterable[RunRecord]) -> str:
    """Who worked on some runs, in words: one name where one did everything."""
    records = list(records)
    trained = [record for record in records if record.is_trained]
    wrote = {record.engine for record in trained or records}
    roles = {
        "teacher": {record.teacher_engine for record in trained if record.teacher_engine},
        "evaluated by": {record.drawn_by(entry) for record in records for entry in record.evaluations},
    }
    said = [f"{role} {' and '.join(sorted(names))}" for role, names in roles.items() if names - wrote]
    return ", ".join(sorted(wrote)) + (f" ({', '.join(said)})" if said else "")


def methods_together(rows: Iterable[Row], method_of: Callable[[Row], str]) -> list[Row]:
    """The rows in their order, but for those of one method under other knobs, which follow its first one."""
    ordered = list(rows)
    methods = [method_of(row) for row in ordered]
    return sorted(ordered, key=lambda row: methods.index(method_of(row)))


def subset_name(task: str, problems: int, of: int) -> str:
    """The name of scores on the first problems of a task: no table takes them for those of the whole."""
    return f"{task} ({problems} of {of})"


def whole_task(name: str) -> str:
    """The task of a name that `subset_name` may have made."""
    return _SUBSET.sub("", name)


def is_subset(name: str) -> bool:
    """Whether scores of this name are on a part of their task's problems."""
    return _SUBSET.search(name) is not None


def write_record(path: Path, record: RunRecord) -> None:
    """Writes `record` as JSON, atomically."""
    write_json(path, record_to_dict(record))


def record_to_dict(record: RunRecord) -> dict[str, Any]:
    """What is written of a record: everything, but a decoding without a name, engines that are not known and a GPU's
    counter without a GPU, which older records have not.
    """
    content = dataclasses.asdict(record)
    if not record.counters.peak_gpu_memory_bytes:
        del content["counters"]["peak_gpu_memory_bytes"]
    for evaluation in content["evaluations"]:
        for key, absent in (("decoding", OWN), ("engine", "")):
            if evaluation[key] == absent:
                del evaluation[key]
    if not record.teacher_engine:
        del content["teacher_engine"]
    return content


def load_record(path: Path) -> RunRecord:
    """Reads a record; a file that is not one is a UserError that names it."""
    try:
        return record_from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:  # a ValueError: also where it is not UTF-8
        raise UserError(f"{path} is not a valid run record ({error}); {way_out(path)}.") from error


def way_out(path: Path) -> str:
    """Of a file in a run's folder that cannot be read."""
    return f"delete the folder {path.parent} to run it again"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl, one for each step from 1 on, none without the file; UserError names a line
    that is none, or not of its step.
    """
    path = folder / METRICS_FILE
    rows: list[dict[str, Any]] = []
    mend = way_out(path)
    for number, row in checked_rows(path, dict[str, float | None], torn_last_line="drop", way_out=mend):
        if type(row.get("step")) is not int:
            raise wrong_row(path, number, "a row of metrics has a step", mend)
        if row["step"] != len(rows) + 1:
            raise wrong_row(path, number, f"step {row['step']} where step {len(rows) + 1} should stand", mend)
        rows.append(row)
    return rows


def utc_now() -> str:
    """The time as records have it, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def record_from_dict(raw: dict[str, Any]) -> RunRecord:
    """Builds a RunRecord from parsed JSON; ValueError names what is wrong with it."""
    if not isinstance(raw, dict):
        raise ValueError(f"it must be an object, not {type(raw).__name__}")
    version = raw.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema_version is {version!r}, this version of the harness reads {SCHEMA_VERSION}")
    if raw.get("status") not in typing.get_args(Status):
        raise ValueError(f"status is {raw.get('status')!r}")
    return parse(RunRecord, raw)


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


@dataclass(frozen=True)
class TextRow:
    """The text of one evaluated sample; a line of texts.jsonl."""

    task: str
    protocol_hash: str
    item_id: str
    repeat: int
    text: str | None  # None: of a set whose texts are kept private
    extracted: Any  # the answer that was read from it
    problem: str | None = None  # of a problem's first sample: the question, and the task's own answer
    reference: str | None = None


ROW_FILES: dict[str, type] = {ITEMS_FILE: ItemRow, TEXTS_FILE: TextRow}  # what their rows are
