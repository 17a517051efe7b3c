"""Reads the problems of a task into rows {"id", "problem", "answer"} of strings, from a local file or from the Hub.

Both sources give the same rows, so that the fingerprint of the data does not depend on where they came from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.files import read_rows
from tasks.served import vary_seeds

if TYPE_CHECKING:
    import datasets

DATA_VARIABLE = "BENCHMARK_DATA"
FIELDS = ("id", "problem", "answer")
Row = dict[str, str]
Convert = Callable[[Mapping[str, Any], int], Mapping[str, Any]]  # a raw row and its number to the fields of a Row


@dataclass(frozen=True)
class HubSource:
    """Where the Hub has a data set."""

    id: str
    split: str
    config: str | None = None
    revision: str | None = None  # None: the newest; the data's fingerprint in the protocol hash shows a change
    gated: bool = False  # its licence has to be accepted before it can be downloaded


def benchmark_rows(name: str, data_dir: str | None, hub: HubSource, convert: Convert | None = None) -> list[Row]:
    """The rows of `<data_dir or $BENCHMARK_DATA>/<name>/test.jsonl`; where neither is given, those of the Hub."""
    folder = data_folder(data_dir)
    if folder is not None:
        return read_problems(data_file(folder, f"{name}/test.jsonl"), convert)
    raw = hub_rows(name, hub, f"{name}/test.jsonl")
    return _checked([_converted(row, number, convert) for number, row in enumerate(raw)], hub.id)


def data_folder(data_dir: str | None) -> Path | None:
    """The folder that the user gave, by argument or by environment variable."""
    folder = data_dir or os.environ.get(DATA_VARIABLE)
    return Path(folder) if folder else None


def as_splits(**splits: Sequence[Mapping[str, Any]]) -> dict[str, datasets.Dataset]:
    """What lm-eval takes as a data set: a Dataset for every split. A server that is to be asked gets seeds that differ
    (tasks.served).
    """
    from datasets import Dataset

    vary_seeds()
    return {split: Dataset.from_list([dict(row) for row in rows]) for split, rows in splits.items()}


def read_problems(path: Path, convert: Convert | None = None) -> list[Row]:
    """Reads a JSONL file of problems. A row that is not one is a UserError that names file and line."""
    rows: list[Row] = []
    for line_number, raw in json_lines(path):
        try:
            rows.append(_converted(raw, len(rows), convert))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}, line {line_number}: {error}.") from error
    return _checked(rows, str(path))


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The line numbers and the rows of a JSONL file."""
    if not path.is_file():
        raise UserError(f"The data file {path} does not exist.")
    yield from read_rows(path, torn_last_line="refuse", way_out="mend or delete the line")


def _converted(raw: Any, number: int, convert: Convert | None) -> Row:
    """Renames the columns of the source, where they differ, and checks that a row has its three fields."""
    if not isinstance(raw, Mapping):
        raise ValueError(f"a row must be a JSON object, not {type(raw).__name__}")
    if convert is not None:
        raw = {**raw, **convert(raw, number)}
    for field in FIELDS:
        if field not in raw:
            raise ValueError(f"the field {field!r} is missing (every row has {', '.join(FIELDS)})")
        if isinstance(raw[field], bool) or not isinstance(raw[field], str | int | float) or raw[field] == "":
            raise ValueError(f"the field {field!r} must be a text or a number, not {raw[field]!r}")
    return {field: str(raw[field]) for field in FIELDS}


def renamed(raw: Mapping[str, Any], *names: str) -> Any:
    """The first of these columns that the source has; copies of a data set name them differently."""
    for name in names:
        if name in raw:
            return raw[name]
    raise ValueError(f"the field {names[0]!r} is missing")


def whole_number(value: Any) -> str:
    """The text of an integer that some copies of a data set keep as a float ("27.0")."""
    text = str(value).strip()
    return text[:-2] if text.endswith(".0") else text


def _checked(rows: list[Row], source: str) -> list[Row]:
    if not rows:
        raise UserError(f"{source} holds no problems.")
    check_ids((row["id"] for row in rows), source)
    return rows


def check_ids(ids: Iterable[str], source: str) -> None:
    """Results are kept by id: two problems may not share one."""
    seen: set[str] = set()
    for item in ids:
        if item in seen:
            raise UserError(f"{source}: the id {item!r} occurs twice; results are kept by id.")
        seen.add(item)


def data_file(folder: Path, *names: str) -> Path:
    """The first of these files that the data folder has."""
    wanted = " or ".join(names)
    advice = f"evaluation.data_dir (or ${DATA_VARIABLE}) must name the folder that contains {wanted}."
    if not folder.is_dir():
        raise UserError(f"The data folder {folder} does not exist; {advice}")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder / names[0]} does not exist; {advice}")


def hub_rows(name: str, hub: HubSource, wanted: str) -> Iterable[Mapping[str, Any]]:
    """The raw rows of a Hub data set; a UserError says what to do where they cannot be had."""
    import datasets

    try:
        return datasets.load_dataset(hub.id, hub.config, revision=hub.revision, split=hub.split)
    except (OSError, ValueError) as error:  # no network, no access, or not in the cache
        licence = (
            f"accept the licence at https://huggingface.co/datasets/{hub.id} and log in with `hf auth login`, or "
            if hub.gated
            else ""
        )
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"The data of task {name} cannot be loaded from the Hub ({hub.id}: {reason}); {licence}give "
            f"evaluation.data_dir (or ${DATA_VARIABLE}), a folder that contains {wanted}."
        ) from error
