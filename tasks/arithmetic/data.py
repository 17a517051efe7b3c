"""The arithmetic problems: `dev.jsonl` and `test.jsonl` beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.data import as_splits, read_problems

if TYPE_CHECKING:
    import datasets

FOLDER = Path(__file__).parent


def load(**_: Any) -> dict[str, datasets.Dataset]:
    """Both splits. lm-eval passes the task's metadata, which these problems do not depend on."""
    return as_splits(**{split: read_problems(FOLDER / f"{split}.jsonl") for split in ("dev", "test")})
