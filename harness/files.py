"""Files: where shipped ones are, from whatever folder a command is started, and the one way to write and to read text,
JSON and JSONL.

A JSONL file has a row, which is a JSON object, on every line. Lines end at line feeds alone: a text may hold Unicode's
other separators. What is written whole is written to a temporary name and renamed; what is appended to may end in a
torn line.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import UserError

ROOT = Path(__file__).resolve().parent.parent  # the checkout
LOCK = ".lock"  # in a run's folder: whoever holds it is the only one that writes there
LEAST_ROOM = 2**20  # bytes; a disk with less is full
_SURROGATES = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class Line:
    """A line of a file, without what it says."""

    number: int  # from 1
    offset: int  # in the file, bytes
    content: bytes  # with its line feed, which a torn last line lacks


def locate(name: str) -> str:
    """A path as given if it exists, else the one inside the checkout, else (a Hub id) `name` itself.

    So a configuration can name shipped models by a path that means the same on every machine.
    """
    if not Path(name).exists() and (ROOT / name).exists():
        return str(ROOT / name)
    return name


def check_writable(folder: Path) -> None:
    """Refuses a results folder that cannot be written to."""
    probe = folder / f".write-test-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"results_dir={str(folder)!r} is not writable ({error.strerror}); give another folder."
        ) from error


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Writes to a temporary name beside `path` and renames, so that a reader never sees half a file; a temporary file
    that could not be written to its end is taken away.

    `durable`: it is on the disk before it has its name, so that a power failure leaves the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as sink:
            sink.write(text)
            sink.flush()
            if durable:
                os.fsync(sink.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_full(error: BaseException | None, folder: Path | None = None) -> bool:
    """Whether an error, or one that it came from, says that there is no room for what was written; of libraries that do
    not say so, the disk of `folder` is asked.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return folder is not None and shutil.disk_usage(folder).free < LEAST_ROOM


def no_room(folder: Path | str) -> UserError:
    """The sentence on a full disk."""
    return UserError(
        f"there is no room left on the disk of {folder}; make room and run the same command again, which goes on from "
        "here."
    )


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as JSON, atomically."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def clear_folder(folder: Path) -> None:
    """Deletes everything in a run's folder but its lock, which the caller holds."""
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove_folder(folder: Path, root: Path) -> None:
    """Deletes a run's folder, and those above it, below `root`, that are empty then."""
    shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # not empty: another run is there, or begins
        for parent in folder.parents:
            if parent == root or not parent.is_relative_to(root):
                break
            parent.rmdir()


def row_text(row: Mapping[str, Any], compact: bool = False) -> str:
    """A row as a line of JSONL, line feed included; `compact` sorts its keys and leaves out spaces."""
    style: dict[str, Any] = {"sort_keys": True, "separators": (",", ":")} if compact else {}
    text = json.dumps(row, ensure_ascii=False, **style)
    if not text.isascii() and _SURROGATES.search(
        text
    ):  # half of a pair is valid JSON as an escape, and no text of UTF-8
        text = json.dumps(row, **style)
    return text + "\n"


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], compact: bool = False) -> None:
    """Writes a JSONL file, atomically."""
    write_text(path, "".join(row_text(row, compact) for row in rows))


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Adds a row to a JSONL file; a kill may leave a torn last line."""
    with path.open("a", encoding="utf-8") as sink:
        sink.write(row_text(row))


def lines_of(path: Path) -> Iterator[Line]:
    """The lines that hold something, one after the other, for files that do not fit in memory."""
    offset = 0
    with path.open("rb") as file:
        for number, content in enumerate(file, start=1):
            if content.strip():
                yield Line(number, offset, content)
            offset += len(content)


def parse_row(content: bytes) -> dict[str, Any]:
    """The row on a line; ValueError says what it is instead."""
    try:
        row = json.loads(content)
    except (ValueError, RecursionError) as error:  # also where it is not UTF-8
        raise ValueError(f"not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"a row must be a JSON object, not {type(row).__name__}")
    return row


def read_rows(
    path: Path, *, torn_last_line: Literal["drop", "refuse"], way_out: str, missing_ok: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a JSONL file with their line numbers.

    Args:
        torn_last_line: what becomes of a last line without a line feed that holds no row: "drop" where the file is
            appended to, and a kill
            may have cut it off.
        way_out: what the reader of the error can do, `mend or delete the line`.
        missing_ok: no rows, where there is no file.
    """
    if missing_ok and not path.exists():
        return
    try:
        for line in lines_of(path):
            try:
                row = parse_row(line.content)
            except ValueError as error:
                if torn_last_line == "drop" and not line.content.endswith(b"\n"):
                    return
                raise UserError(f"{path}, line {line.number}: {error}; {way_out}.") from error
            yield line.number, row
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {way_out}.") from error


def cut_torn_line(path: Path) -> None:
    """Drops what stands behind the last line feed: the beginning of a line, if its writer was killed in its middle."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
