"""JSONL: one reader and one writer, whatever stands in a line and wherever a kill cut the file off."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from harness.console.commands import complain_once, exit_code_of
from harness.errors import UserError
from harness.files import append_row, clear_folder, cut_torn_line, lines_of, read_rows, write_rows, write_text

ROWS: list[dict[str, Any]] = [
    {"b": 1, "a": "é \u2028 \x85 \x0b \x0c | \n"},
    {"half of a pair": "\ud800"},
    {"ids": [1, 2]},
]


def read(path: Path, torn: Any = "refuse", **options: Any) -> list[tuple[int, dict[str, Any]]]:
    return list(read_rows(path, torn_last_line=torn, way_out="mend it", **options))


@pytest.mark.parametrize("compact", [False, True])
def test_rows_come_back_whatever_separators_a_text_holds(tmp_path: Path, compact: bool) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, ROWS, compact)
    assert read(path) == list(enumerate(ROWS, start=1))
    assert path.read_bytes().count(b"\n") == 3 and os.listdir(tmp_path) == ["rows.jsonl"]


def test_a_compact_row_is_sorted_and_has_no_spaces(tmp_path: Path) -> None:
    write_rows(tmp_path / "a", [{"b": [1, 2], "a": "é"}], compact=True)
    write_rows(tmp_path / "b", [{"b": [1, 2], "a": "é"}])
    assert (tmp_path / "a").read_text() == '{"a":"é","b":[1,2]}\n'
    assert (tmp_path / "b").read_text() == '{"b": [1, 2], "a": "é"}\n'


def test_a_file_that_was_cut_off_anywhere_has_its_whole_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_row(path, {"step": 1})
    append_row(path, {"step": 2})
    # twice 12 bytes, of which the last is the line feed: without it, a row is whole all the same
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        kept = 2 if length >= 23 else 1 if length >= 11 else 0
        assert [row["step"] for _, row in read(path, "drop")] == [1, 2][:kept]
        if length not in (0, 11, 12, 23, 24):
            with pytest.raises(UserError, match=rf"rows.jsonl, line {1 + length // 12}: not valid JSON .*; mend it\."):
                read(path)
        cut_torn_line(path)
        assert path.read_bytes() == whole[: 12 * (length // 12)]


@pytest.mark.parametrize("torn", ["drop", "refuse"])
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"a": 1', "not valid JSON"),
        (b'{"a": "\xe9"}', "not valid JSON .*utf-8"),
        (b"[1]", "a row must be a JSON object, not list"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_whole_line_that_is_no_row_is_named(tmp_path: Path, torn: str, line: bytes, problem: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": "\xe2\x80\xa8"}\n\n' + line + b"\n" + b'{"a": 2}\n')
    with pytest.raises(UserError, match=rf"rows.jsonl, line 3: {problem}.*; mend it\."):
        read(path, torn)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.jsonl cannot be read \(No such file or directory\); mend it\."):
        read(tmp_path / "none.jsonl")
    assert read(tmp_path / "none.jsonl", missing_ok=True) == []


def test_a_line_is_found_again_by_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": 2}')
    assert [(line.number, line.offset, line.content) for line in lines_of(path)] == [
        (1, 0, b'{"a": 1}\n'),
        (3, 10, b'{"a": 2}'),
    ]


def test_a_cleared_folder_keeps_its_lock(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    for name in (".lock", "record.json", "checkpoint/model"):
        (tmp_path / name).touch()
    clear_folder(tmp_path)
    assert os.listdir(tmp_path) == [".lock"]


def test_a_disk_that_is_full_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(tmp_path / "file", "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    complain_once.cache_clear()
    assert exit_code_of(lambda: write_text(tmp_path / "file", "new") or 0) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("error: there is no room left on the disk of ") and "goes on from here" in sentence
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "old"


def test_a_text_that_is_none_of_utf8_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "file", "half \ud800")
    assert os.listdir(tmp_path) == []
