"""The journal of an evaluation: every finished sample, appended as it comes, so that nothing is generated twice.

A line of `generations.jsonl` is {"key", "ids", "stop_reason"}. The key is a hash of all that decides a sample: the
model's weights, the engine, the prompt's ids, the sampling parameters, the limit and the seed, in which task, problem
and repeat are. Neither the grader nor the task's name for its metrics is in it: a mended grader grades what is there.

Samples that an interrupted evaluation had finished are kept byte for byte. The others are drawn from the same streams,
but beside fewer others, which changes the rounding of the model's products: in float64 they come out the same, in
bfloat16 one in some thousands takes another turn, as it would on another machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

from harness.errors import UserError
from harness.files import Line, cut_torn_line, lines_of, parse_row, row_text
from harness.results.schema import parse
from harness.rollout import RolloutRequest, Sampling
from harness.types import Rollout, StopReason

JOURNAL = "generations.jsonl"
TRAINING_ONLY = (
    "one_end",
    "record_stops",
)  # of Sampling; no evaluation sets them, and keys of an earlier day are without


@dataclasses.dataclass(frozen=True)
class JournalRow:
    """A line of generations.jsonl."""

    key: str
    ids: tuple[int, ...]  # of the completion's tokens
    stop_reason: StopReason


class SampleJournal:
    """What has been generated of one model, on disk; a context manager. Whoever opens it must be its only writer."""

    def __init__(self, path: Path, model: str, engine: str = "hf") -> None:
        """
        Args:
            path: of the JSONL file; made at the first sample.
            model: identity of the weights (harness.config.identity.model_identity).
            engine: that draws the samples; those of another one are not taken for its own.

        Raises UserError for a line that cannot be read, except a last one that was cut off while it was written.
        """
        self._model = model if engine == "hf" else f"{model} by {engine}"  # hf: as keys of an earlier day
        self._offsets = read_journal(path)  # of the lines, by key: answers of 32,768 tokens do not all fit in memory
        cut_torn_line(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")

    def __enter__(self) -> SampleJournal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def find(self, request: RolloutRequest, sampling: Sampling) -> Rollout | None:
        """The stored completion of a request, if there is one. Its log-probs are not kept: no evaluation reads them."""
        offset = self._offsets.get(self._key(request, sampling))
        if offset is None:
            return None
        self._file.seek(offset)
        row = json.loads(self._file.readline())
        return Rollout(
            prompt_ids=request.prompt_ids,
            completion_ids=tuple(row["ids"]),
            prefix_len=len(request.prefix_ids),
            logprobs=(),
            policy_version=0,
            stop_reason=row["stop_reason"],
            prompt_id=request.prompt_id,
            sample_index=request.sample_index,
        )

    def add(self, request: RolloutRequest, sampling: Sampling, rollout: Rollout) -> None:
        """Appends a finished completion; once this returns, a kill of the process does not lose it."""
        key = self._key(request, sampling)
        row = {"key": key, "ids": list(rollout.completion_ids), "stop_reason": rollout.stop_reason}
        self._offsets[key] = self._file.seek(0, os.SEEK_END)
        self._file.write(row_text(row).encode())
        self._file.flush()

    def _key(self, request: RolloutRequest, sampling: Sampling) -> str:
        coordinates = {
            "model": self._model,
            "prompt_ids": [*request.prompt_ids, *request.prefix_ids],
            "sampling": {key: value for key, value in dataclasses.asdict(sampling).items() if key not in TRAINING_ONLY},
            "seed": request.seed,
            "repeat": request.sample_index,
        }
        return hashlib.sha256(json.dumps(coordinates, sort_keys=True).encode()).hexdigest()


def read_journal(path: Path) -> dict[str, int]:
    """Where the line of every key begins, in bytes, without a torn last line; UserError names a
    line that is no sample.
    """
    offsets: dict[str, int] = {}
    if not path.exists():
        return offsets
    for line in lines_of(path):
        if line.content.endswith(b"\n"):
            offsets[_key_of(line, path)] = line.offset
    return offsets


def _key_of(line: Line, path: Path) -> str:
    try:
        return parse(JournalRow, parse_row(line.content)).key
    except ValueError as error:
        raise UserError(
            f"{path}, line {line.number}: not a sample ({error}); delete that line (its sample is then generated "
            "again)."
        ) from None
