"""AIME 2024: from a local folder if one is given (metadata `data_dir` or $BENCHMARK_DATA), otherwise from the Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.data import HubSource, as_splits, benchmark_rows

if TYPE_CHECKING:
    import datasets

HUB = HubSource("HuggingFaceH4/aime_2024", "train", revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a")


def load(data_dir: str | None = None, **_: Any) -> dict[str, datasets.Dataset]:
    """The 30 problems; lm-eval passes the task's metadata as keyword arguments."""
    return as_splits(test=benchmark_rows("aime24", data_dir, HUB))
