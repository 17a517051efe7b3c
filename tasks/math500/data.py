"""MATH-500: from a local folder if one is given (metadata `data_dir` or $BENCHMARK_DATA), otherwise from the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.data import HubSource, as_splits, benchmark_rows

if TYPE_CHECKING:
    import datasets

HUB = HubSource("HuggingFaceH4/MATH-500", "test")


def load(data_dir: str | None = None, **_: Any) -> dict[str, datasets.Dataset]:
    """The 500 problems; lm-eval passes the task's metadata as keyword arguments."""
    return as_splits(test=benchmark_rows("math500", data_dir, HUB, _row))


def _row(raw: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A problem is known by its path in MATH."""
    return {"id": raw.get("unique_id", number)}
