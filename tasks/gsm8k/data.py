"""GSM8K, the test split: from a local folder if one is given (metadata `data_dir` or $BENCHMARK_DATA), otherwise from
the Hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.data import HubSource, as_splits, benchmark_rows, renamed

if TYPE_CHECKING:
    import datasets

HUB = HubSource("openai/gsm8k", "test", config="main")


def load(data_dir: str | None = None, **_: Any) -> dict[str, datasets.Dataset]:
    """The 1319 problems; lm-eval passes the task's metadata as keyword arguments."""
    return as_splits(test=benchmark_rows("gsm8k", data_dir, HUB, _row))


def _row(raw: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The gold solution ends in `#### <answer>`; the set has no ids."""
    _, mark, answer = str(renamed(raw, "answer")).rpartition("####")
    if not mark:
        raise ValueError("the answer does not end in `#### <number>`")
    return {"id": number, "problem": renamed(raw, "question"), "answer": answer.strip()}
