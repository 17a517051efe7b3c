"""harness.results.record: what a file holds is what was written, and a file that is no record is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.results.record import CURVE, Counters, Evaluation, ItemRow, RunRecord, load_record, write_record

# a file as it stands on disk: a change of names, types or the version makes every finished run unreadable
STORED: dict[str, Any] = {
    "method": "tropd",
    "knobs": {"beta": 0.5, "gate": "hard"},
    "changed_knobs": {"gate": "hard", "beta": 0.5},
    "setting": {"name": "tiny", "steps": 2},
    "training_hash": "abc",
    "seed": 3,
    "status": "completed",
    "reason": "",
    "counters": {
        "steps": 2,
        "student_tokens": 10,
        "teacher_tokens": 4,
        "scored_tokens": 14,
        "rollout_s": 1.5,
        "scoring_s": 0.5,
        "update_s": 0.25,
        "evaluation_s": 2.0,
        "peak_memory_bytes": 1024,
        "reference_tokens": 0,
        "student_scored_tokens": 0,
        "operations": 0.0,
    },
    "evaluations": [
        {
            "task": "arithmetic",
            "protocol_hash": "p",
            "problems": 2,
            "samples": 4,
            "score": 0.625,
            "truncated_frac": 0.0,
            "mean_tokens": 7.5,
            "correct": [4, 1],
            "metrics": {"pass_at_k": 1.0},
            "majority": [1, 0],
        },
        {
            "task": "code",
            "protocol_hash": "q",
            "problems": 1,
            "samples": 1,
            "score": 1.0,
            "truncated_frac": 0.5,
            "mean_tokens": 9.0,
            "correct": [1],
            "metrics": {},
            "majority": None,
        },
    ],
    "engine": "vllm",
    "training": {"loss": 0.125},
    "provenance": {"commit": "c"},
    "started_at": "2026-01-01T00:00:00+00:00",
    "finished_at": "2026-01-01T00:01:00+00:00",
    "distance": None,
    "schema_version": 1,
}
RECORD = RunRecord(
    method="tropd",
    knobs={"beta": 0.5, "gate": "hard"},
    changed_knobs={"gate": "hard", "beta": 0.5},
    setting={"name": "tiny", "steps": 2},
    training_hash="abc",
    seed=3,
    status="completed",
    counters=Counters(2, 10, 4, 14, 1.5, 0.5, 0.25, 2.0, 1024),
    evaluations=(
        Evaluation("arithmetic", "p", 2, 4, 0.625, 0.0, 7.5, (4, 1), {"pass_at_k": 1.0}, (1, 0)),
        Evaluation("code", "q", 1, 1, 1.0, 0.5, 9.0, (1,)),
    ),
    engine="vllm",
    training={"loss": 0.125},
    provenance={"commit": "c"},
    started_at="2026-01-01T00:00:00+00:00",
    finished_at="2026-01-01T00:01:00+00:00",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "seed3" / "record.json"


def stored(path: Path, **changes: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**STORED, **changes}), encoding="utf-8")
    return path


def test_a_stored_file_is_read_field_by_field(path: Path) -> None:
    assert load_record(stored(path)) == RECORD


def test_what_is_written_is_that_file(path: Path) -> None:
    path.parent.mkdir()
    write_record(path, RECORD)
    assert json.loads(path.read_text(encoding="utf-8")) == STORED
    assert load_record(path) == RECORD


def test_engines_are_kept_where_they_are_known(path: Path) -> None:
    """An older record has none of its evaluations', which its own engine drew."""
    assert RECORD.drawn_by(RECORD.evaluations[0]) == "vllm"
    newer = dataclasses.replace(
        RECORD,
        teacher_engine="hf",
        evaluations=tuple(dataclasses.replace(entry, engine="server") for entry in RECORD.evaluations),
    )
    path.parent.mkdir()
    write_record(path, newer)
    assert load_record(path) == newer and newer.drawn_by(newer.evaluations[0]) == "server"
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["teacher_engine"] == "hf" and [e["engine"] for e in written["evaluations"]] == ["server"] * 2


def test_a_run_that_has_just_started_has_done_nothing(path: Path) -> None:
    """The defaults, in full: a row without them must not look like one that has cost or scored something."""
    started = RunRecord("opd", {}, {}, {}, "abc", 0, "started")
    assert started == RunRecord(
        "opd", {}, {}, {}, "abc", 0, "started", "", Counters(), (), "hf", {}, {}, "", "", schema_version=1
    )
    assert set(dataclasses.astuple(Counters())) == {0}
    assert Evaluation("t", "p", 1, 1, 0.0, 0.0, 0.0, (0,)).majority is None
    path.parent.mkdir()
    write_record(path, started)
    assert load_record(path) == started


@pytest.mark.parametrize("status", ["started", "completed", "failed"])
def test_every_status_is_read(path: Path, status: str) -> None:
    assert load_record(stored(path, status=status)).status == status


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": 2}, "schema_version is 2, this version of the harness reads 1"),
        ({"schema_version": None}, "schema_version is None"),
        ({"status": "done"}, "status is 'done'"),
        ({"nosuch": 1}, "nosuch"),
        ({"evaluations": None}, "evaluations must be tuple"),
        ({"evaluations": {}}, "evaluations must be tuple"),
        ({"knobs": []}, "knobs must be dict"),
        ({"seed": True}, "seed must be int, not True"),
        ({"reason": 3}, "reason must be str, not 3"),
        ({"evaluations": [{"task": "t", "correct": [1]}]}, "missing"),
        ({"evaluations": [{**STORED["evaluations"][0], "correct": [1, 0.5]}]}, "evaluations[0].correct[1] must be int"),
        ({"counters": {"nosuch": 1}}, "nosuch"),
    ],
)
def test_a_file_that_is_no_record_is_named(path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_record(stored(path, **changes))
    sentence = str(caught.value)
    assert sentence.startswith(f"{path} is not a valid run record (")
    assert said in sentence
    assert sentence.endswith(f"delete the folder {path.parent} to run it again.")


@pytest.mark.parametrize("text", ["", '{"method": "opd", ', "[]", "{}"])
def test_text_that_is_no_object_is_named_too(path: Path, text: str) -> None:
    stored(path).write_text(text)
    with pytest.raises(UserError, match=r"record\.json is not a valid run record"):
        load_record(path)


@pytest.mark.parametrize("content", [b"\xff\xfe{", b'{"method": "\xe9"}', b"[" * 100_000])
def test_bytes_that_are_no_json_are_named_too(path: Path, content: bytes) -> None:
    stored(path).write_bytes(content)
    with pytest.raises(UserError, match=r"record\.json is not a valid run record"):
        load_record(path)


def test_the_label_is_the_method_and_its_changed_knobs_in_the_order_of_their_names() -> None:
    assert RECORD.label == "tropd (beta=0.5, gate=hard)"
    assert dataclasses.replace(RECORD, changed_knobs={}).label == "tropd"


def test_names_that_files_are_made_of() -> None:
    assert CURVE == "eval/"
    assert [field.name for field in dataclasses.fields(ItemRow)] == [
        "task",
        "protocol_hash",
        "item_id",
        "repeat",
        "correct",
        "tokens",
        "stop_reason",
    ]


def test_a_gpus_peak_is_stored_where_there_was_one(path: Path) -> None:
    """Records of CPUs, those published before among them, stay as they are, byte for byte."""
    path.parent.mkdir()
    counters = dataclasses.replace(RECORD.counters, peak_gpu_memory_bytes=7)
    for record in (RECORD, dataclasses.replace(RECORD, counters=counters)):
        write_record(path, record)
        assert load_record(path) == record
        assert ("peak_gpu_memory_bytes" in json.loads(path.read_text())["counters"]) == (record is not RECORD)
