"""What a function returned, as JSON that keeps apart what Python's == keeps apart. Runs inside the sandbox.

The expected value never enters the sandbox, so the value has to leave it. JSON's own types stay themselves; others are
objects with one key: {"tuple": [...]}, {"dict": [[key, value], ...]}, {"int": "0x..."}, {"ratio": ["0x...", "0x..."]},
{"array": [dtype, nested lists]}, and {"other": type name} for what equals nothing that JSON can express.
"""

import json
from typing import Any

_LONG_INT = 1 << 4000  # longer ones may not be printed in decimal


def dumps(value: object) -> str:
    try:
        return json.dumps(_portable(value))
    except RecursionError:  # deeper than any expected value
        return json.dumps({"other": "nested"})


def _portable(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        number = int(value)
        return number if -_LONG_INT < number < _LONG_INT else {"int": hex(number)}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, list):
        return [_portable(entry) for entry in value]
    if isinstance(value, tuple):
        return {"tuple": [_portable(entry) for entry in value]}
    if isinstance(value, dict):
        return {"dict": [[_portable(key), _portable(entry)] for key, entry in value.items()]}
    return _unusual(value)


def _unusual(value: Any) -> object:
    kind = type(value)
    if kind.__module__ == "numpy" and hasattr(value, "item") and hasattr(value, "dtype"):
        return _array(value)
    if kind.__module__ in ("decimal", "fractions") and hasattr(value, "as_integer_ratio"):
        try:
            return {"ratio": [hex(part) for part in value.as_integer_ratio()]}
        except (ValueError, OverflowError):  # not a number, or infinite
            return {"other": kind.__name__}
    if isinstance(value, complex) and value.imag == 0:
        return value.real
    return {"other": kind.__name__}


def _array(value: Any) -> object:
    if value.shape == ():
        return _portable(value.item())
    if value.dtype.kind in "biufU":
        return {"array": [value.dtype.str, value.tolist()]}
    return {"other": "array"}
