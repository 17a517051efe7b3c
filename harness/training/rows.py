"""Rows of prompts as they come: from files of several formats, folders, and the Hub. The one home of reading them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from harness.errors import UserError
from harness.files import locate

Row = Mapping[str, Any]
Place = str  # of a row, in words: the file and the line
Kind = Literal["file", "folder", "missing", "hub"]
FILE_NAME = re.compile(r"\.(jsonl|json|csv|parquet)(\.gz)?$")
FORMATS = ".jsonl, .json (an array), .csv or .parquet, the first three also as .gz"
OTHER_FILE = re.compile(r"\.(txt|tsv|zip|zst|xz|bz2|gz|arrow|pkl|yaml|yml|xlsx?)$")
SAVED = ("dataset_info.json", "dataset_dict.json")  # of datasets' save_to_disk


def kind_of(source: str) -> Kind:
    """Where prompts come from; `missing` is a file or folder that is not there."""
    path = Path(locate(source))
    if path.is_file():
        return "file"
    if path.is_dir():
        return "folder"
    is_path = source.startswith((".", "/", "~")) or source.count("/") > 1 or "\\" in source
    return "missing" if is_path or FILE_NAME.search(source) or OTHER_FILE.search(source) else "hub"


def read_rows(source: str, split: str, key: str = "setting.prompts") -> Iterator[tuple[Place, Row]]:
    """Every row with its place. UserError names the file and line, or `key`, the option that named the source."""
    kind = kind_of(source)
    if kind == "missing":
        raise UserError(f"{key}: there is no file {source!r}; give another, or make it with python -m harness.prepare.")
    if kind == "file":
        return read_file(Path(locate(source)), key)
    return _library_rows(locate(source), split, key)


def read_file(path: Path, key: str = "setting.prompts") -> Iterator[tuple[Place, Row]]:
    """The rows of a local file, one after the other."""
    found = FILE_NAME.search(path.name)
    if not found or (found[1] == "parquet" and found[2]):
        raise UserError(f"{key}={str(path)!r}: is none of {FORMATS}.")
    if found[1] == "parquet":
        return _parquet_rows(path)
    try:
        content = gzip.decompress(path.read_bytes()) if found[2] else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}.") from error
    readers: dict[str, Callable[[Path, bytes], Iterator[tuple[Place, Row]]]] = {
        "jsonl": _lines,
        "json": _array if content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[" else _lines,
        "csv": _csv_rows,
    }
    return readers[found[1]](path, content)


def _lines(path: Path, content: bytes) -> Iterator[tuple[Place, Row]]:
    """JSON lines end with a line feed alone: U+2028 and U+0085 are characters of a text. Empty lines are none."""
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            place = f"{path}, line {number}"
            try:
                row = json.loads(_text(line, place))
            except (ValueError, RecursionError):
                raise UserError(f"{place}: not valid JSON; mend or delete the line.") from None
            yield place, _object(row, place)


def _array(path: Path, content: bytes) -> Iterator[tuple[Place, Row]]:
    try:
        rows = json.loads(_text(content.removeprefix(b"\xef\xbb\xbf"), str(path)))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); mend it.") from None
    for number, row in enumerate(rows, 1):
        yield f"{path}, row {number}", _object(row, f"{path}, row {number}")


def _csv_rows(path: Path, content: bytes) -> Iterator[tuple[Place, Row]]:
    """An empty cell is an absent value."""
    rows = csv.DictReader(io.StringIO(_text(content.removeprefix(b"\xef\xbb\xbf"), str(path)), newline=""), strict=True)
    number = 0
    try:
        for number, row in enumerate(rows, 1):
            if None in row:
                raise UserError(f"{path}, row {number}: has more cells than the header.")
            yield f"{path}, row {number}", {key: value or None for key, value in row.items()}
    except csv.Error as error:
        raise UserError(f"{path}, row {number + 1}: {error}.") from error


def _parquet_rows(path: Path) -> Iterator[tuple[Place, Row]]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(f"{path} is no parquet file that can be read: {' '.join(str(error).split())}") from error


def _library_rows(name: str, split: str, key: str) -> Iterator[tuple[Place, Row]]:
    """A folder or a data set of the Hub, by the library `datasets`."""
    import datasets

    folder = Path(name)
    try:
        if any((folder / marker).is_file() for marker in SAVED):
            data: Any = datasets.load_from_disk(name)
            data = data[split] if isinstance(data, datasets.DatasetDict) else data
        else:
            data = datasets.load_dataset(name, split=split)
    except Exception as error:  # the library raises many unrelated types; all mean that the set cannot be read
        where = "" if folder.is_dir() else " from the Hub"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"cannot load {key}={name!r} (split {split!r}){where}: {reason}") from error
    return ((f"{name}, row {number}", row) for number, row in enumerate(data, 1))


def _text(content: bytes, place: Place) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{place}: not UTF-8; save the file in that encoding.") from None


def _object(row: Any, place: Place) -> Row:
    if not isinstance(row, dict):
        raise UserError(f'{place}: expected an object such as {{"prompt": "..."}}.')
    return row
