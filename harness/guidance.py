"""Teacher text for methods that need it: one cached response per training prompt, made once for all methods and seeds.

The cache is keyed by a fingerprint of the teacher, the prompts and the sampling; it is filled in pieces, so that a
killed build goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from harness.progress import MakeBar, terminal_bar
from harness.prompts import Prompt
from harness.rollout import RolloutEngine, RolloutRequest, Sampling
from harness.seeds import seed_of
from harness.types import Method

REQUESTS_PER_PIECE = 512  # responses between two writes to disk


@dataclass(frozen=True)
class TeacherResponses:
    """Cached responses by prompt id, end token included where the teacher wrote one."""

    completion_ids: dict[str, tuple[int, ...]]
    stop_ids: tuple[int, ...]

    def text_of(self, prompt: Prompt) -> tuple[int, ...]:
        """The response without its end token: what a prefix may be cut from."""
        ids = self.completion_ids[prompt.prompt_id]
        return ids[:-1] if ids and ids[-1] in self.stop_ids else ids


def fingerprint(teacher: str, prompts: Sequence[Prompt], sampling: Sampling) -> str:
    """16 hex digits that change with the teacher, any prompt's tokens or the sampling."""
    digest = hashlib.sha256(json.dumps([teacher, repr(sampling)]).encode())
    for prompt in prompts:
        digest.update(json.dumps([prompt.prompt_id, prompt.ids]).encode())
    return digest.hexdigest()[:16]


def load_or_make_responses(
    folder: Path,
    teacher: str,
    engine: RolloutEngine,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    make_bar: MakeBar = terminal_bar,
) -> TeacherResponses:
    """Reads the cache, or fills it with one temperature-1 response per prompt; safe to call from several processes at once."""
    path = folder / f"responses-{fingerprint(teacher, prompts, sampling)}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            _make(path, engine, prompts, sampling, make_bar)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return TeacherResponses({row["prompt_id"]: tuple(row["ids"]) for row in rows}, sampling.stop_ids)


def _make(path: Path, engine: RolloutEngine, prompts: Sequence[Prompt], sampling: Sampling, make_bar: MakeBar) -> None:
    part = path.with_suffix(".part")
    done = _finished_ids(part)
    missing = [p for p in prompts if p.prompt_id not in done]
    with part.open("a") as sink, make_bar("teacher responses", len(prompts), "responses") as bar:
        bar.advance(len(prompts) - len(missing))
        for start in range(0, len(missing), REQUESTS_PER_PIECE):
            piece = missing[start : start + REQUESTS_PER_PIECE]
            requests = [RolloutRequest(p.prompt_id, p.ids, seed_of("teacher_responses", p.prompt_id)) for p in piece]
            for rollout in engine.generate(requests, sampling):
                sink.write(json.dumps({"prompt_id": rollout.prompt_id, "ids": rollout.completion_ids}) + "\n")
            sink.flush()
            bar.advance(len(piece))
    os.replace(part, path)


def _finished_ids(part: Path) -> set[str]:
    """Prompt ids of a build that was cut off; a half-written last line is dropped from the file."""
    if not part.exists():
        return set()
    whole = part.read_bytes().rpartition(b"\n")
    part.write_bytes(whole[0] + whole[1])
    return {json.loads(line)["prompt_id"] for line in whole[0].splitlines()}


def choose_prefixes(
    method: Method, responses: Sequence[Sequence[int]], progress: float, uniforms: Tensor, min_continuation: int
) -> list[tuple[int, ...]]:
    """The teacher prefix of each prompt: the method says how long, the Setting how much the student must be left to write.

    Args: responses, P teacher texts without end token; progress in [0, 1]; uniforms [P] in [0, 1).
    """
    lengths = torch.tensor([len(ids) for ids in responses], dtype=torch.long)
    wanted = method.prefix_lengths(progress, lengths, uniforms)
    longest = (lengths - min_continuation).clamp_min(0)
    cut = torch.minimum(wanted.clamp_min(0), longest)
    return [tuple(ids[:n]) for ids, n in zip(responses, cut.tolist(), strict=True)]
