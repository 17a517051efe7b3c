"""The marker `complete` of a checkpoint: written last, with a digest of every file, so that a folder that a kill cut
off or a disk damaged is told from a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.config.identity import read_digest
from harness.errors import UserError
from harness.results.schema import parse

MARKER = "complete"


@dataclass(frozen=True)
class Rows:
    """The beginning of a file that is appended to, as it was when a checkpoint was saved."""

    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Seal:
    """The content of the marker. Before it had any, an empty file was the marker; such a folder cannot be checked."""

    files: dict[str, str]  # path in the folder -> sha256
    rows: dict[str, Rows] = field(default_factory=dict)  # of files beside the run's checkpoints, by name


def seal(folder: Path, appended: Sequence[Path] = ()) -> None:
    """Marks a folder as whole; `appended` are files elsewhere whose rows so far belong to it."""
    files = {str(path.relative_to(folder)): read_digest(path) for path in _files(folder)}
    rows = {path.name: Rows(path.stat().st_size, read_digest(path)) for path in appended if path.exists()}
    with (folder / MARKER).open("w", encoding="utf-8") as marker:
        json.dump(asdict(Seal(files, rows)), marker, indent=1)
        marker.flush()
        os.fsync(marker.fileno())


def is_sealed(folder: Path) -> bool:
    """Whether it was saved to its end."""
    return (folder / MARKER).is_file()


def has_digests(folder: Path) -> bool:
    """Whether its marker is of a version that can tell damage."""
    return is_sealed(folder) and (folder / MARKER).stat().st_size > 0


def damage_of(folder: Path, home: Path | None = None) -> str:
    """What is not as it was when the folder was sealed, or nothing; `home` has the files of its rows."""
    if not has_digests(folder):
        return ""
    try:
        found = parse(Seal, json.loads((folder / MARKER).read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        return f"{MARKER} cannot be read ({error})"
    for name, digest in found.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if read_digest(path) != digest:
            return f"{name} is not what was saved"
    for name, rows in found.rows.items():
        if home is not None and _beginning(home / name, rows.size) != rows.sha256:
            return f"the rows of {name} that belong to it are not what they were"
    return ""


def check_seal(folder: Path, way_out: str) -> None:
    """UserError if a sealed folder is damaged."""
    if problem := damage_of(folder):
        raise UserError(f"{folder} is damaged: {problem}; {way_out}.")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MARKER)


def _beginning(path: Path, size: int) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        return hashlib.sha256(stream.read(size)).hexdigest()
