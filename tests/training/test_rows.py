"""Files of prompts as people have them: every format gives the same rows, every flaw is a sentence with its place."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.training.rows import kind_of, read_rows

ROWS = [{"prompt": "first"}, {"prompt": "second, with \u2028 and \x85 and ü"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def rows_of(path: Path) -> list[dict]:
    return [dict(row) for _, row in read_rows(str(path), "train")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.jsonl", LINES.encode()),
        ("bom.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
        ("blank.jsonl", (LINES + "\n\n").encode()),
        ("between.jsonl", LINES.replace("}\n", "}\n \n").encode()),
        ("windows.jsonl", LINES.replace("\n", "\r\n").encode()),
        ("packed.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("lines.json", LINES.encode()),
        ("array.json", json.dumps(ROWS, indent=1).encode()),
        ("array_bom.json", b"\xef\xbb\xbf\n" + json.dumps(ROWS).encode()),
        ("array.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
    ],
)
def test_files_of_json(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert rows_of(tmp_path / name) == ROWS


def test_tables(tmp_path: Path) -> None:
    import datasets

    table = datasets.Dataset.from_list(ROWS)
    table.to_parquet(tmp_path / "table.parquet")
    table.save_to_disk(tmp_path / "saved")
    (tmp_path / "folder").mkdir()
    table.to_parquet(tmp_path / "folder" / "train.parquet")
    with (tmp_path / "table.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerows([["prompt", "id"], *([row["prompt"], ""] for row in ROWS)])
    for name in ("table.parquet", "saved", "folder"):
        assert rows_of(tmp_path / name) == ROWS, name
    assert rows_of(tmp_path / "table.csv") == [{**row, "id": None} for row in ROWS]  # an empty cell is absent


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"prompt": "x"}\n\n{"prompt"\n', "a.jsonl, line 3: not valid JSON"),
        ("a.jsonl", b'{"prompt": "x"}\n"text"\n', "line 2: expected an object"),
        ("a.jsonl", b'{"prompt": "\xff"}\n', "line 1: not UTF-8"),
        ("a.jsonl", b"[" * 100_000, "line 1: not valid JSON"),
        ("a.jsonl", '{"prompt": "x"}'.encode("utf-16"), "line 1: not UTF-8"),
        ("a.jsonl", b'\n{"prompt": "x", "n": ' + b"9" * 5000 + b"}\n", "line 2: not valid JSON"),
        ("a.json", b"[" * 100_000, "a.json: not valid JSON"),
        ("a.json", b'[{"prompt": "x"}', "a.json: not valid JSON"),
        ("a.json", b'[{"prompt": "x"}, 3]', "row 2: expected an object"),
        ("a.jsonl.gz", b"no archive", "a.jsonl.gz cannot be read"),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-20] + b"\x00" * 20, "a.jsonl.gz cannot be read"),
        ("a.csv", b"prompt\na,b\n", "row 1: has more cells than the header"),
        ("a.csv", b'prompt\n"a\n', "row 1: unexpected end of data"),
        ("a.parquet", b"no table", "a.parquet is no parquet file"),
        ("a.txt", b"text", "is none of .jsonl, .json"),
        ("a.parquet.gz", b"", "is none of .jsonl, .json"),
    ],
)
def test_a_flaw_is_named_with_its_place(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        rows_of(tmp_path / name)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_where_a_source_is(tmp_path: Path) -> None:
    (tmp_path / "here.jsonl").write_text("")
    found = [
        kind_of(source) for source in (str(tmp_path / "here.jsonl"), str(tmp_path), "not_here.parquet", "owner/data")
    ]
    assert found == ["file", "folder", "missing", "hub"]
    assert kind_of("data/openthoughts3/part.tsv") == "missing"
    with pytest.raises(UserError, match=r"there is no file 'not_here\.csv'"):
        list(read_rows("not_here.csv", "train"))
    with pytest.raises(UserError, match=r"cannot load setting\.prompts=.*split 'train'\): "):
        list(read_rows(str(tmp_path), "train"))  # a folder without data
