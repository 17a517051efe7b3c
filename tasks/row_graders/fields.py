"""Reads the fields of a row, with an error that names the field."""

import math
from collections.abc import Mapping
from reprlib import repr as shortened
from typing import Any

from harness.errors import UserError
from tasks.sample_metrics import GRADERS, Grader

MISSING = object()


def text_of(row: Mapping[str, Any], field: str) -> str:
    """A field that has to be a text."""
    value = row.get(field, MISSING)
    if value is MISSING:
        raise ValueError(f"the field {field!r} is missing")
    if not isinstance(value, str):
        raise ValueError(f"the field {field!r} must be a text, not {shortened(value)}")
    return value


def answer_of(row: Mapping[str, Any]) -> str:
    """The gold answer; data sets keep some as numbers, and GSM8K as the end of a solution: `… #### 18`."""
    value = row.get("answer", MISSING)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"the field 'answer' must be a finite number or a text, not {value}")
        return str(value)
    return text_of(row, "answer").rpartition("####")[2].strip()


def list_of(row: Mapping[str, Any], field: str) -> list[Any]:
    """A field that has to be a list."""
    value = row.get(field, MISSING)
    if value is MISSING:
        raise ValueError(f"the field {field!r} is missing")
    if not isinstance(value, list):
        raise ValueError(f"the field {field!r} must be a list, not {shortened(value)}")
    return value


def grader_of(options: Mapping[str, str]) -> Grader:
    """The option `grader`, checked."""
    for grader in GRADERS:
        if options["grader"] == grader:
            return grader
    raise UserError(f"grader must be one of {', '.join(GRADERS)}, not {options['grader']!r}.")
