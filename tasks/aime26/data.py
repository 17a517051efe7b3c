"""AIME 2026: from a local folder if one is given (metadata `data_dir` or $BENCHMARK_DATA), otherwise from the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.data import HubSource, as_splits, benchmark_rows, renamed

if TYPE_CHECKING:
    import datasets

HUB = HubSource("math-ai/aime26", "test")


def load(data_dir: str | None = None, **_: Any) -> dict[str, datasets.Dataset]:
    """The 30 problems; lm-eval passes the task's metadata as keyword arguments."""
    return as_splits(test=benchmark_rows("aime26", data_dir, HUB, _row))


def _row(raw: Mapping[str, Any], number: int) -> dict[str, Any]:
    """One copy calls the answer `expected_answer` and puts the name of the set before the ids."""
    item = str(raw.get("id", number)).removeprefix("aime26-")
    return {"id": item, "answer": renamed(raw, "answer", "expected_answer")}
