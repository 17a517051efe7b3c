"""The one check of what a file of ours holds: parsed JSON against the type hints of a record.

Every reader of a run's folder goes through it, so that a damaged file is a sentence that names the entry, and never an
error further on.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from harness.errors import UserError
from harness.files import read_rows

Kind = TypeVar("Kind")


def parse(kind: type[Kind], raw: Any) -> Kind:
    """The record that parsed JSON describes; ValueError names the entry that its type hints do not allow.

    Lists stand for tuples, an entry that the record does not have is refused, and one that has a default may be absent.
    """
    return _value(kind, raw, "")


def checked_rows(
    path: Path, kind: type, *, torn_last_line: Literal["drop", "refuse"], way_out: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a JSONL file with their line numbers (none without the file); UserError names a line that is no
    `kind`.
    """
    for number, row in read_rows(path, torn_last_line=torn_last_line, way_out=way_out, missing_ok=True):
        try:
            parse(kind, row)
        except ValueError as error:
            raise wrong_row(path, number, error, way_out) from error
        yield number, row


def wrong_row(path: Path, number: int, problem: object, way_out: str) -> UserError:
    """The sentence on a line that is not what it should be."""
    return UserError(f"{path}, line {number}: {problem}; {way_out}.")


def _value(kind: Any, raw: Any, where: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return raw
    if dataclasses.is_dataclass(kind):
        return _record(kind, raw, where)
    if origin is typing.Literal:
        return raw if raw in inner and isinstance(raw, type(inner[0])) else _refuse(kind, raw, where)
    if origin in (typing.Union, types.UnionType):
        return None if raw is None and type(None) in inner else _value(inner[0], raw, where)
    if origin in (tuple, list):
        if not isinstance(raw, list | tuple):
            _refuse(kind, raw, where)
        return origin(_value(inner[0], entry, f"{where}[{number}]") for number, entry in enumerate(raw))
    if origin is dict:
        if not isinstance(raw, dict):
            _refuse(kind, raw, where)
        return {key: _value(inner[1], entry, _joined(where, key)) for key, entry in raw.items()}
    if kind is float and type(raw) is int:  # JSON does not tell 1 from 1.0
        return raw
    return raw if type(raw) is kind else _refuse(kind, raw, where)


def _record(kind: Any, raw: Any, where: str) -> Any:
    if not isinstance(raw, Mapping):
        _refuse(kind, raw, where)
    hints = _hints(kind)
    for name in raw:
        if name not in hints:
            raise ValueError(f"unknown entry {_joined(where, str(name))!r:.80}")
    for field in dataclasses.fields(kind):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and field.name not in raw:
            raise ValueError(f"{_joined(where, field.name)!r} is missing")
    return kind(**{name: _value(hints[name], entry, _joined(where, name)) for name, entry in raw.items()})


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return {field.name: typing.get_type_hints(kind)[field.name] for field in dataclasses.fields(kind)}


def _joined(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _refuse(kind: Any, raw: Any, where: str) -> typing.NoReturn:
    wanted = kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
    raise ValueError(f"{where or 'it'} must be {re.sub(r'[a-z_]+[.]', '', wanted)}, not {raw!r:.60}")
