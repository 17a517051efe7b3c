"""Which of several processes that train one model this is, and what the first tells the others; without a process group
everything is one's own. harness.training.ranks has the rest.
"""

from __future__ import annotations

import os
from typing import TypeVar

from torch import distributed as dist

T = TypeVar("T")


def count() -> int:
    """How many ranks train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def index() -> int:
    """Which of them this process is."""
    return dist.get_rank() if dist.is_initialized() else 0


def on_this_machine() -> int:
    """How many of them are on this machine, as the launcher says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", count())) if count() > 1 else 1


def from_main(value: T) -> T:
    """The value that rank 0 gave, on every rank; nobody goes on before rank 0 has come here."""
    if count() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
