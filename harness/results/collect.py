"""Finds the run records of a comparison and refuses what must not stand in one table.

A comparison is a folder of run folders, as harness/results/record.py lays them out, or a published folder with one
file `runs.jsonl`, a record per line.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.decodings import OWN, column_of, in_order, task_of
from harness.errors import UserError
from harness.files import read_rows, write_rows
from harness.results.record import Evaluation, RunRecord, load_record, record_from_dict, record_to_dict, way_out

PUBLISHED = "runs.jsonl"
PUBLISHED_PROVENANCE = (
    "commit",
    "dirty",
    "inputs",
    "method_source",
    "versions",
    "python",
    "hardware",
    "gpus",
)  # what a published record keeps of it
_SCORE_TOLERANCE = 1e-6  # a score and its success counts are the same number, but for rounding in JSON

Rows = list[tuple[RunRecord, Evaluation]]
RunKey = tuple[str, int]  # label and seed: at most one run of a comparison
Protocols = Mapping[str, str]  # column, or task -> protocol hash, or enough of its beginning


@dataclass(frozen=True)
class FoundRun:
    """A record and where it was found."""

    record: RunRecord
    folder: Path | None  # the run's folder; None in a published comparison, which has no more than records


def find_runs(folder: Path) -> list[FoundRun]:
    """All runs of a comparison folder, finished or not, sorted by label and seed.

    Raises UserError for a folder without runs, a record that cannot be read and two records of the same run.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give a comparison folder, such as results/<setting>-<hash8>.")
    paths = sorted(folder.glob("*/seed*/record.json"))
    found = [FoundRun(read_record(path), path.parent) for path in paths]
    published = folder / PUBLISHED
    if not found and published.is_file():
        found = [FoundRun(record, None) for record in read_published(published)]
    if not found:
        raise UserError(
            f"{folder} holds no run: neither <method>/seed<k>/record.json nor {PUBLISHED}; give a comparison folder, "
            "such as results/<setting>-<hash8>."
        )
    repeated = [key for key, count in Counter(key_of(run.record) for run in found).items() if count > 1]
    if repeated:
        label, seed = repeated[0]
        raise UserError(f"{folder} has more than one record of {label} seed {seed}; delete all but one.")
    return sorted(found, key=lambda run: key_of(run.record))


def load_records(folder: Path) -> list[RunRecord]:
    """The records of `find_runs`."""
    return [run.record for run in find_runs(folder)]


def key_of(record: RunRecord) -> RunKey:
    """What names a run within its comparison."""
    return record.label, record.seed


def publish_records(path: Path, records: Iterable[RunRecord]) -> None:
    """Writes one record per line, sorted, with the provenance that a table needs; atomically."""
    rows = []
    for record in sorted(records, key=key_of):
        provenance = {key: record.provenance[key] for key in PUBLISHED_PROVENANCE if key in record.provenance}
        rows.append(record_to_dict(dataclasses.replace(record, provenance=provenance)))
    write_rows(path, rows, compact=True)


def check_comparable(records: Sequence[RunRecord]) -> None:
    """Raises UserError unless all records have one training hash, one set of knobs per label and, where they were
    trained, one engine for the completions and one for the teacher.

    Replicates may differ in their student: a seed then has one of its own, by one recipe, under all methods.
    """
    first, *others = records
    for record in others:
        pair = f"{_name(first)} and {_name(record)}"
        if record.training_hash != first.training_hash and not are_replicates(first, record):
            raise UserError(f"Mixtures refused: {pair} differ in {_setting_difference(first, record)}; keep one kind.")
    _check_engines([record for record in records if record.is_trained])
    _check_students(records)
    by_label: dict[str, RunRecord] = {}
    for record in records:
        same = by_label.setdefault(record.label, record)
        changed = differing(same.knobs, record.knobs)
        if changed:
            raise UserError(
                f"Mixtures refused: {_name(same)} and {_name(record)} differ in the method's knobs "
                f"({_show(changed)}), whose defaults have changed between them; run one of them again."
            )


def _check_engines(trained: Sequence[RunRecord]) -> None:
    """One engine wrote what all of them were trained on, and one scored the teacher, where a record says which."""
    asked = {"rolled out": lambda record: record.engine, "scored": lambda record: record.teacher_engine}
    for done, engine_of in asked.items():
        first = next((record for record in trained if engine_of(record)), None)
        for record in trained:
            if first is not None and engine_of(record) not in ("", engine_of(first)):
                raise UserError(
                    f"Mixtures refused: {_name(first)} and {_name(record)} were {done} by different engines "
                    f"({engine_of(first)}, {engine_of(record)}); run them again on one engine."
                )


def are_replicates(a: RunRecord, b: RunRecord) -> bool:
    """Whether two runs are the same but for their students, which are of one recipe (harness.tiny)."""
    left, right = _inputs(a), _inputs(b)
    if left.get("recipe") is None or {**left, "student": None} != {**right, "student": None}:
        return False
    own = {"name": None, "notes": None, "student": None}
    return not differing({**a.setting, **own}, {**b.setting, **own})


def _inputs(record: RunRecord) -> Mapping[str, Any]:
    return record.provenance.get("inputs") or {}


def _check_students(records: Sequence[RunRecord]) -> None:
    """One seed stands on one student, one checkpoint on one set of weights, whatever their paths say."""
    known: dict[tuple[str, int], tuple[str, RunRecord]] = {}
    for record in records:
        place, digest = "", _inputs(record).get("student")
        if digest is None:  # a checkpoint that was evaluated only, if its record says of which weights
            place, digest = str(record.knobs.get("checkpoint")), record.knobs.get("weights")
        if digest is None:
            continue
        before, other = known.setdefault((place, record.seed), (digest, record))
        if before != digest:
            what = f"different weights of {place}" if place else f"two students of seed {record.seed}"
            raise UserError(
                f"Mixtures refused: {_name(other)} and {_name(record)} were made from {what} ({before} and "
                f"{digest}); run one of them again."
            )


def with_names(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The records with one name for each protocol's decoding: rows that were made before it was named take the name
    that others give it.
    """
    names: dict[tuple[str, str], str] = {}
    for record in records:
        for e in record.evaluations:
            names[e.task, e.protocol_hash] = names.get((e.task, e.protocol_hash)) or e.decoding
    return [
        dataclasses.replace(
            record,
            evaluations=tuple(
                dataclasses.replace(e, decoding=names[e.task, e.protocol_hash]) for e in record.evaluations
            ),
        )
        for record in records
    ]


def columns_of(records: Iterable[RunRecord], task: str) -> list[str]:
    """The columns of a task that records (of one name for each protocol, see with_names) have, side by side; the task's
    own where there are none.
    """
    found = {e.decoding for record in records for e in record.evaluations if e.task == task}
    return [column_of(task, decoding) for decoding in in_order(found or {OWN})]


def select_evaluations(
    records: Sequence[RunRecord], protocols: Protocols | None = None
) -> dict[str, dict[RunKey, Evaluation]]:
    """The evaluations of completed runs by column (a task under a decoding), under one protocol each.

    `protocols` chooses where a column was evaluated under several, which is a UserError without it. Of a task with a
    chosen protocol nothing else is selected.
    """
    by_task: dict[str, Rows] = {}
    for record in with_names([record for record in records if record.status == "completed"]):
        for evaluation in record.evaluations:
            by_task.setdefault(evaluation.task, []).append((record, evaluation))
    wanted = protocols or {}
    unknown = sorted({task_of(column) for column in wanted} - set(by_task))
    if unknown:
        known = ", ".join(sorted(by_task)) or "none"
        raise UserError(f"A protocol is chosen for {unknown[0]}, which no run was evaluated on; known: {known}.")
    selected = {}
    for task, rows in sorted(by_task.items()):
        rows = _chosen(task, rows, [name for column, name in wanted.items() if task_of(column) == task])
        for decoding in in_order({evaluation.decoding for _, evaluation in rows}):
            column = column_of(task, decoding)
            one = _one_protocol(column, [row for row in rows if row[1].decoding == decoding])
            designs = {(evaluation.problems, evaluation.samples) for _, evaluation in one}
            if len(designs) > 1:
                raise UserError(
                    f"Mixtures refused: {column} has runs with different numbers of (problems, samples): "
                    f"{sorted(designs)}; evaluate them again."
                )
            _check_one_engine(column, one)
            selected[column] = {key_of(record): evaluation for record, evaluation in one}
    return selected


def _chosen(task: str, rows: Rows, protocols: Sequence[str]) -> Rows:
    """The rows of a task under the protocols, by enough of their beginning; all of them where none is given."""
    for name in protocols:
        if not any(evaluation.protocol_hash.startswith(name) for _, evaluation in rows):
            known = ", ".join(sorted({evaluation.protocol_hash for _, evaluation in rows}))
            raise UserError(f"No run was evaluated on {task} under the protocol {name}; known: {known}.")
    return [row for row in rows if not protocols or row[1].protocol_hash.startswith(tuple(protocols))]


def _one_protocol(column: str, rows: Rows) -> Rows:
    examples = {evaluation.protocol_hash: record for record, evaluation in rows}
    if len(examples) > 1:
        listed = " and ".join(f"{name} (such as {_name(record)})" for name, record in sorted(examples.items()))
        raise UserError(
            f"Mixtures refused: {column} was evaluated under different protocols, {listed}; evaluate all runs alike, "
            f"or choose one with --protocol {column}=<hash>."
        )
    return rows


def _check_one_engine(column: str, rows: Rows) -> None:
    examples = {record.drawn_by(evaluation): record for record, evaluation in rows}
    if len(examples) > 1:
        listed = " and ".join(f"{engine} (such as {_name(record)})" for engine, record in sorted(examples.items()))
        raise UserError(
            f"Mixtures refused: the samples of {column} were drawn by different engines, {listed}; evaluate all runs "
            "by one, as engine.evaluation=… does."
        )


def read_record(path: Path) -> RunRecord:
    """The record of a run folder, checked; UserError names what is wrong."""
    try:
        record = load_record(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); mend its permissions or delete its folder."
        ) from error
    problem = _find_inconsistency(record)
    if problem:
        raise UserError(f"{path} is not a valid run record ({problem}); {way_out(path)}.")
    return record


def read_published(path: Path) -> list[RunRecord]:
    """The records of a published file, checked; UserError names the line that is wrong."""
    records = []
    mend = "restore the file, or delete the line"
    for number, row in read_rows(path, torn_last_line="refuse", way_out=mend):
        try:
            record = record_from_dict(row)
            problem = _find_inconsistency(record)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problem = f"{type(error).__name__}: {error}"
        if problem:
            raise UserError(f"{path}, line {number}: not a valid run record ({problem}); {mend}.")
        records.append(record)
    return records


def _find_inconsistency(record: RunRecord) -> str:
    """What is wrong with the values of a record, or nothing."""
    if not isinstance(record.method, str) or not isinstance(record.seed, int):
        return f"method is {record.method!r} and seed is {record.seed!r}"
    seen = set()
    for evaluation in record.evaluations:
        counts, total = evaluation.correct, evaluation.problems * evaluation.samples
        if len(counts) != evaluation.problems or total <= 0:
            return f"{evaluation.task} has {len(counts)} success counts for {evaluation.problems} problems"
        if not all(isinstance(count, int) and 0 <= count <= evaluation.samples for count in counts):
            return f"{evaluation.task} has a success count that is not in 0..{evaluation.samples}"
        if not abs(sum(counts) / total - evaluation.score) <= _SCORE_TOLERANCE:  # also when it is NaN
            return f"{evaluation.task} has the score {evaluation.score}, its success counts say {sum(counts) / total}"
        voted = evaluation.majority
        if voted is not None and not (len(voted) == evaluation.problems and set(voted) <= {0, 1}):
            return f"{evaluation.task} has a majority that is not 0 or 1 for each of {evaluation.problems} problems"
        if (evaluation.task, evaluation.protocol_hash) in seen:
            return f"{evaluation.task} is there twice under one protocol"
        seen.add((evaluation.task, evaluation.protocol_hash))
    return ""


def _setting_difference(a: RunRecord, b: RunRecord) -> str:
    changed = differing({**a.setting, "name": None}, {**b.setting, "name": None})  # the name is not part of the hash
    if changed:
        return f"the setting ({_show(changed)})"
    contents = differing(_inputs(a), _inputs(b))
    if contents:
        return f"the content of {', '.join(contents)} ({_show(contents)})"
    return f"the training hash ({a.training_hash}, {b.training_hash}) though not in a setting key: other code or data"


def differing(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted key -> the two values, for the keys whose values differ; an absent key has the value None."""
    changed: dict[str, tuple[Any, Any]] = {}
    for key in sorted({*a, *b}):
        left, right = a.get(key), b.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            changed |= differing(left, right, f"{prefix}{key}.")
        elif left != right:
            changed[f"{prefix}{key}"] = (left, right)
    return changed


def _show(changed: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key}: {left} against {right}" for key, (left, right) in changed.items())


def _name(record: RunRecord) -> str:
    return f"{record.label} seed {record.seed}"


def without_rate(setting: Mapping[str, Any]) -> str:
    """A setting without its learning rate, to see whether two differ in anything else."""
    return repr(sorted((key, str(value)) for key, value in setting.items() if key not in ("learning_rate", "notes")))
