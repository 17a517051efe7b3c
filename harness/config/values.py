"""What a value of a configuration may be, whatever its key: the one rule for numbers, names, folders and seeds."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import UserError

KNOBS = "method"  # the group whose numbers may be negative: only the method knows
MAY_BE_ZERO = {"weight_decay", "warmup_steps", "adam_beta1", "adam_beta2", "lora_rank", "temperature"} | {
    *("devices", "teacher_devices")  # numbers of GPUs
}
BELOW_ONE = {"adam_beta1", "adam_beta2"}
AT_MOST = {"top_p": 1, "threads": 4096, "num_processes": 4096}
LARGEST = 2**31 - 1  # of a whole number
SEEDS = 2**32  # numpy's and torch's generators take these many
LONGEST_NAME = 100  # characters
PLAIN = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def check_entries(record: type[Any], values: Mapping[Any, Any], where: str) -> None:
    """UserError names the first entry of a list or mapping that is itself one, where the record has plain values.

    OmegaConf checks the types of entries, but lets a list or a mapping through in the place of any of them.
    """
    hints = typing.get_type_hints(record)
    for key, value in values.items():
        is_union = typing.get_origin(hints[key]) is types.UnionType
        for kind in typing.get_args(hints[key]) if is_union else [hints[key]]:
            of = typing.get_args(kind)[-1] if typing.get_origin(kind) in (list, dict) else None
            if of not in PLAIN or not isinstance(value, list | Mapping):
                continue
            for name, entry in value.items() if isinstance(value, Mapping) else enumerate(value):
                if isinstance(entry, list | Mapping):
                    raise UserError(f"{where}.{key}.{name} is {entry!r}: it must be {PLAIN[of]}.")


def check_numbers(record: Any, where: str) -> None:
    """UserError names the first number in a record of the configuration that no run can use.

    Every number is finite. Outside of the knobs it is positive too, or 0 where that means something.
    """
    for field in dataclasses.fields(record):
        for key, value in _numbers(getattr(record, field.name), f"{where}.{field.name}"):
            if problem := _problem(key.rpartition(".")[2], value, where == KNOBS):
                raise UserError(f"{key}={value}: {problem}.")


def _numbers(value: Any, key: str) -> Iterator[tuple[str, int | float]]:
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _numbers(entry, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _numbers(entry, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value


def _problem(name: str, value: int | float, is_knob: bool) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"must be at most {LARGEST}"
    if is_knob:
        return ""
    if value < 0 or (value == 0 and name not in MAY_BE_ZERO):
        return "must not be negative" if name in MAY_BE_ZERO else "must be positive"
    if name in BELOW_ONE and value >= 1:
        return "must be less than 1"
    return f"must be at most {AT_MOST[name]}" if value > AT_MOST.get(name, value) else ""


def check_keys(raw: Mapping[Any, Any], needed: Iterable[str]) -> None:
    """UserError for an entry that was taken out of the configuration, as by `~seed`."""
    if missing := sorted(set(needed) - set(raw)):
        raise UserError(f"{missing[0]} is not set; give {missing[0]}=… on the command line.")


def whole_number(key: str, value: Any, below: int = SEEDS) -> int:
    """A whole number from 0 on, from YAML or from the command line, such as a seed; UserError names the key."""
    try:
        if isinstance(value, bool) or int(value) != float(value):
            raise ValueError
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{key}={value!r}: expected a whole number.") from None
    if not 0 <= number < below:
        raise UserError(f"{key}={number}: must be from 0 to {below - 1}.")
    return number


def plain_name(key: str, value: Any) -> str:
    """A name that folders are named after too; UserError if it would lead elsewhere, or could not be printed."""
    wrong = (
        not isinstance(value, str)
        or not value.strip()
        or value.startswith(".")
        or len(value) > LONGEST_NAME
        or not value.isprintable()
        or bool({"/", "\\"} & set(value))
    )
    if wrong:
        raise UserError(
            f"{key}={value!r:.120}: it names a folder too, and must be a plain name of at most {LONGEST_NAME} "
            "printable characters, without / and not beginning with a dot."
        )
    return str(value)


def folder_of(key: str, value: Any) -> Path:
    """A folder for results; UserError if it is none."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise UserError(f"{key}={value!r:.120}: expected the path of a folder.")
    return Path(value)
