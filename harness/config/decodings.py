"""The named decodings: one home of what `greedy`, `paper` and `sampled` mean, whatever a task's own file says.

A task evaluated under several has a column for each; a column is named `task@decoding`, or by its task alone where the
task is decoded as its file says (the decoding "").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError

OWN = ""  # the decoding of a task's own file
DECODING_KEYS = ("do_sample", "temperature", "top_p", "top_k")  # of generation_kwargs: what a decoding decides


@dataclass(frozen=True)
class Decoding:
    """How a token is chosen from the model's distribution; no top-k."""

    temperature: float  # 0: the most likely token
    top_p: float
    samples: int | None = None  # per problem; None: the task's or the protocol's number

    def __str__(self) -> str:
        """In words."""
        if self.temperature == 0:
            return "the most likely token, one sample"
        return f"temperature {self.temperature:g}, top-p {self.top_p:g}"

    def applied(self, generation: Mapping[str, Any]) -> dict[str, Any]:
        """A task's generation_kwargs under this decoding: untouched where they say the same, so that the protocol of
        `sampled` on a task that samples at 1 and 1 is the task's own.
        """
        if chosen_by(generation) == (self.temperature, self.top_p, 0):
            return dict(generation)
        chosen = {"do_sample": self.temperature > 0, "temperature": self.temperature, "top_p": self.top_p}
        return {key: value for key, value in generation.items() if key not in DECODING_KEYS} | chosen


# in the order in which they stand side by side
DECODINGS: Mapping[str, Decoding] = {
    # the others of its samples would be the same
    "greedy": Decoding(temperature=0.0, top_p=1.0, samples=1),
    # of the task files here and of DeepSeek-R1 (arXiv 2501.12948), for the benchmarks of TrOPD, which publishes none
    "paper": Decoding(temperature=0.6, top_p=0.95),
    # the distribution that training matches
    "sampled": Decoding(temperature=1.0, top_p=1.0),
}
ORDER_BY = "paper"  # tables of several decodings are ordered by it, unless they say otherwise


def chosen_by(generation: Mapping[str, Any]) -> tuple[float, float, int]:
    """Temperature (0: greedy), top-p and top-k (0: off) of a task's generation_kwargs, with lm-eval's defaults."""
    temperature = float(generation.get("temperature", 1.0 if generation.get("do_sample") else 0.0))
    samples = generation.get("do_sample", temperature > 0)
    top_p, top_k = float(generation.get("top_p", 1.0)), max(int(generation.get("top_k", 0)), 0)
    return temperature if samples else 0.0, top_p, top_k


def check_decodings(decodings: Mapping[str, Sequence[str]], order_by: str) -> None:
    """UserError for a name that is none, or for several of a task without the one that tables are ordered by."""
    for task, names in decodings.items():
        where = f"evaluation.decodings.{task}"
        if unknown := [name for name in names if name not in DECODINGS]:
            raise UserError(f"{where} names {unknown[0]!r}; known: {', '.join(DECODINGS)}.")
        if len(set(names)) < len(names):
            raise UserError(f"{where}={list(names)} names a decoding twice; leave one out.")
        if len(names) > 1 and order_by not in names:
            raise UserError(f"evaluation.order_by={order_by!r} is not among {where}={list(names)}; give one of them.")


def column_of(task: str, decoding: str) -> str:
    """The name of a column: `arithmetic@greedy`, or `arithmetic` for the task's own decoding."""
    return f"{task}@{decoding}" if decoding else task


def task_of(column: str) -> str:
    """The task of a column's name."""
    return column.partition("@")[0]


def decoding_of(column: str) -> str:
    """The decoding of a column's name."""
    return column.partition("@")[2]


def place_of(decoding: str) -> tuple[int, str]:
    """Where a decoding stands: the task's own, then DECODINGS' order, then names of another version by the alphabet."""
    known = [OWN, *DECODINGS]
    return (known.index(decoding) if decoding in known else len(known)), decoding


def in_order(decodings: set[str]) -> list[str]:
    """Decodings side by side."""
    return sorted(decodings, key=place_of)


def ordering(decodings: set[str], wanted: str = ORDER_BY) -> str:
    """The decoding that a table is ordered by: the wanted one, or the first of those that are there."""
    return wanted if wanted in decodings else in_order(decodings)[0]
