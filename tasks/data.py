"""Reads the problems of a task into rows {"id", "problem", "answer"} of strings, from a local file or from the Hub.

Both sources give the same rows, so that the fingerprint of the data does not depend on where they came from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError

if TYPE_CHECKING:
    import datasets

DATA_VARIABLE = "BENCHMARK_DATA"
FIELDS = ("id", "problem", "answer")
Row = dict[str, str]


def benchmark_rows(name: str, data_dir: str | None, hub_id: str, hub_revision: str, hub_split: str) -> list[Row]:
    """The rows of `<data_dir or $BENCHMARK_DATA>/<name>/test.jsonl`; where neither is given, those of the Hub."""
    folder = data_dir or os.environ.get(DATA_VARIABLE)
    if folder:
        return read_rows(_benchmark_file(name, Path(folder)))
    return _hub_rows(name, hub_id, hub_revision, hub_split)


def as_splits(**splits: Sequence[Row]) -> dict[str, datasets.Dataset]:
    """What lm-eval takes as a data set: a Dataset for every split."""
    from datasets import Dataset

    return {split: Dataset.from_list(list(rows)) for split, rows in splits.items()}


def read_rows(path: Path) -> list[Row]:
    """Reads a JSONL file of problems. A row that is not one is a UserError that names file and line."""
    if not path.is_file():
        raise UserError(f"The data file {path} does not exist.")
    rows: list[Row] = []
    for line_number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            try:
                rows.append(_row(json.loads(line)))
            except ValueError as error:
                raise UserError(f"{path}, line {line_number}: {error}.") from error
    return _checked(rows, str(path))


def _row(raw: Any) -> Row:
    if not isinstance(raw, Mapping):
        raise ValueError(f"a row must be a JSON object, not {type(raw).__name__}")
    for field in FIELDS:
        if field not in raw:
            raise ValueError(f"the field {field!r} is missing (every row has {', '.join(FIELDS)})")
        if isinstance(raw[field], bool) or not isinstance(raw[field], str | int | float) or raw[field] == "":
            raise ValueError(f"the field {field!r} must be a text or a number, not {raw[field]!r}")
    return {field: str(raw[field]) for field in FIELDS}


def _checked(rows: list[Row], source: str) -> list[Row]:
    if not rows:
        raise UserError(f"{source} holds no problems.")
    seen: set[str] = set()
    for row in rows:
        if row["id"] in seen:
            raise UserError(f"{source}: the id {row['id']!r} occurs twice; results are kept by id.")
        seen.add(row["id"])
    return rows


def _benchmark_file(name: str, folder: Path) -> Path:
    wanted = f"{name}/test.jsonl"
    if not folder.is_dir():
        raise UserError(
            f"The data folder {folder} does not exist; "
            f"evaluation.data_dir (or ${DATA_VARIABLE}) must name the folder that contains {wanted}."
        )
    if not (folder / wanted).is_file():
        raise UserError(
            f"{folder / wanted} does not exist; "
            f"evaluation.data_dir (or ${DATA_VARIABLE}) must name the folder that contains {wanted}."
        )
    return folder / wanted


def _hub_rows(name: str, hub_id: str, revision: str, split: str) -> list[Row]:
    import datasets

    try:
        loaded = datasets.load_dataset(hub_id, revision=revision, split=split)
    except (OSError, ValueError) as error:  # no network, no access, or not in the cache
        raise UserError(
            f"The data of task {name} cannot be loaded from the Hub ({hub_id}: {error}); give evaluation.data_dir "
            f"(or ${DATA_VARIABLE}), a folder that contains {name}/test.jsonl."
        ) from error
    return _checked([_row(row) for row in loaded], hub_id)
