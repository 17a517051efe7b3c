"""AMC 2023 (the 40-problem set): from a local folder if one is given (metadata `data_dir` or $BENCHMARK_DATA),
otherwise from the Hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.data import HubSource, as_splits, benchmark_rows, renamed, whole_number

if TYPE_CHECKING:
    import datasets

HUB = HubSource("math-ai/amc23", "test")


def load(data_dir: str | None = None, **_: Any) -> dict[str, datasets.Dataset]:
    """The 40 problems; lm-eval passes the task's metadata as keyword arguments."""
    return as_splits(test=benchmark_rows("amc23", data_dir, HUB, _row))


def _row(raw: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Answers are floats in some copies (one is -1.0), and the problem is called `question` on the Hub."""
    return {
        "id": raw.get("id", number),
        "problem": renamed(raw, "problem", "question"),
        "answer": whole_number(renamed(raw, "answer")),
    }
