"""HMMT February 2025 as MathArena has it: from a local folder if one is given (metadata `data_dir` or
$BENCHMARK_DATA), otherwise from the Hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.data import HubSource, as_splits, benchmark_rows, renamed

if TYPE_CHECKING:
    import datasets

HUB = HubSource("MathArena/hmmt_feb_2025", "train")


def load(data_dir: str | None = None, **_: Any) -> dict[str, datasets.Dataset]:
    """The 30 problems; lm-eval passes the task's metadata as keyword arguments."""
    return as_splits(test=benchmark_rows("hmmt25", data_dir, HUB, _row))


def _row(raw: Mapping[str, Any], number: int) -> dict[str, Any]:
    """MathArena counts from 1 in `problem_idx`; other copies call the answer `expected_answer`."""
    item = raw.get("problem_idx", raw.get("id", number))
    return {"id": item, "answer": renamed(raw, "answer", "expected_answer")}
