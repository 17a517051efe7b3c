"""samples.jsonl: one training completion of a handful of steps, token by token with the credit that it got.

The first sample of a step's first prompt. Which prompt that is depends on the seed alone, so the methods of a
comparison show their credit on the same prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.results.record import way_out
from harness.results.schema import checked_rows, wrong_row

if TYPE_CHECKING:  # who reads the file needs no torch
    from harness.types import Rollout, TokenCredit, TokenSignal

SAMPLES_FILE = "samples.jsonl"
NUMBERS = ("teacher_logprob", "student_logprob", "reward", "advantage", "divergence_weight", "imitation_weight")
SAMPLED_STEPS = 8  # of a run, evenly spaced, and the first

Decode = Callable[[Sequence[int]], str]
_DIGITS = 6  # significant ones, of the numbers in the file


@dataclass(frozen=True)
class CreditSample:
    """One completion of a step, and what a method made of its T tokens."""

    rollout: Rollout
    teacher_logprob: list[float]  # [T] log π_T(x), nats; NaN where the teacher was not asked
    student_logprob: list[float]  # [T] log π_S(x), likewise
    reward: list[float]  # [T] log π_T(x) − log π_S(x), nats; NaN where a model was not asked
    advantage: list[float]  # [T]
    divergence_weight: list[float]  # [T]
    imitation_weight: list[float]  # [T]


@dataclass(frozen=True)
class SampleRow:
    """A line of samples.jsonl: a CreditSample with its texts."""

    step: int
    prompt_id: str
    prompt: str
    prefix_len: int
    stop_reason: str  # "stop" | "length"
    tokens: list[str]  # [T]
    reward: list[float | None]  # [T], and so on: CreditSample
    advantage: list[float]
    divergence_weight: list[float]
    imitation_weight: list[float]
    teacher_logprob: list[float | None] | None = None  # [T]; None: written before they were kept
    student_logprob: list[float | None] | None = None

    def __post_init__(self) -> None:
        found = [len(column) for name in NUMBERS if (column := getattr(self, name)) is not None]
        if set(found) != {len(self.tokens)}:
            raise ValueError("its tokens and the numbers of their credit are not equally many")


def credit_sample(rollout: Rollout, teacher: TokenSignal, student: TokenSignal, credit: TokenCredit) -> CreditSample:
    """The first completion of a step, and the first row of what is known of it."""
    valid = (0, slice(len(rollout.completion_ids)))
    columns = (
        teacher.logprobs[valid],
        student.logprobs[valid],
        teacher.logprobs[valid] - student.logprobs[valid],
        credit.advantages[valid],
        credit.divergence_weights[valid],
        credit.imitation_weights[valid],
    )
    return CreditSample(rollout, *[column.tolist() for column in columns])


def is_sampled(step: int, steps: int) -> bool:
    """Whether samples.jsonl has a row for this step (counted from 1) of a run of `steps`."""
    return step == 1 or step == steps or step % max(1, -(-steps // SAMPLED_STEPS)) == 0


def sample_row(step: int, sample: CreditSample, decode: Decode) -> dict[str, Any]:
    """A line of samples.jsonl."""
    rollout = sample.rollout
    return {
        "step": step,
        "prompt_id": rollout.prompt_id,
        "prompt": decode(rollout.prompt_ids),
        "prefix_len": rollout.prefix_len,
        "stop_reason": rollout.stop_reason,
        "tokens": token_texts(rollout.completion_ids, decode),
        **{
            name: [None if math.isnan(value) else float(f"{value:.{_DIGITS}g}") for value in getattr(sample, name)]
            for name in NUMBERS
        },
    }


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's samples.jsonl (SampleRow), none without the file; UserError names a line that is none."""
    path = folder / SAMPLES_FILE
    rows: list[dict[str, Any]] = []
    mend = way_out(path)
    for number, row in checked_rows(path, SampleRow, torn_last_line="drop", way_out=mend):
        if rows and row["step"] <= rows[-1]["step"]:
            raise wrong_row(path, number, f"step {row['step']} behind step {rows[-1]['step']}", mend)
        rows.append(row)
    return rows


def token_texts(ids: Sequence[int], decode: Decode) -> list[str]:
    """The text of each token, the space before it included; together they are the decoded completion.

    A character that is spread over several tokens of a byte-level vocabulary belongs to the last of them.
    """
    texts: list[str] = []
    start = 0  # of the tokens whose text is not told yet
    for end in range(1, len(ids) + 1):
        before = decode(ids[max(0, start - 1) : start])  # some tokenizers drop the space before the first token
        text = decode(ids[max(0, start - 1) : end]).removeprefix(before)
        unfinished = text.endswith("\ufffd") and end < len(ids) and end - start < 4  # UTF-8 takes up to 4 bytes
        texts.append("" if unfinished else text)
        start = start if unfinished else end
    return texts
