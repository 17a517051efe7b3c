"""Settings by task, as `evaluation.samples.gsm8k=4`: a number for all of them, and entries that no protocol names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

ALL = "all"  # the entry of every task that has none of its own
NUMBERS = ("samples", "max_new_tokens")  # fields of the evaluation that are a number by task
ENTRY = re.compile(rf"evaluation\.({'|'.join(NUMBERS)}|sampling|metadata|decodings)\.")
FOR_ALL = re.compile(rf"\+{{0,2}}(evaluation\.(?:{'|'.join(NUMBERS)}))=(-?\d+)")


def for_task(entries: Mapping[str, Any], task: str) -> Any:
    """What a setting by task says of one: its own entry, or that of all; None without either."""
    return entries.get(task, entries.get(ALL))


def as_entries(evaluation: Any) -> Any:
    """An evaluation from parsed YAML, where one number of samples or of tokens is that of every task."""
    if not isinstance(evaluation, Mapping):
        return evaluation
    return {
        key: {ALL: value} if key in NUMBERS and isinstance(value, int) else value for key, value in evaluation.items()
    }


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """Arguments as Hydra takes them: an entry of a mapping may be new, and one number takes the mapping's place."""
    found: list[str] = []
    for argument in arguments:
        if whole := FOR_ALL.fullmatch(argument):
            found += [f"~{whole[1]}", f"++{whole[1]}.{ALL}={whole[2]}"]
        else:
            found.append(f"++{argument}" if ENTRY.match(argument) else argument)
    return found
