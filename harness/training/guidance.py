"""Teacher text for methods that need it: one cached response per training prompt, made once for all methods.

Every training seed has texts of its own: where seeds share them (setting.teacher_responses=shared), what their chance
does to a method is the same in all of them, and no interval over seeds knows of it (docs/statistics.md). The cache is
keyed by a fingerprint of the teacher, the prompts and the sampling, and by the seed; it is filled in pieces, so that a
killed build goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from harness.console.progress import MakeBar, terminal_bar
from harness.errors import UserError
from harness.files import cut_torn_line, row_text
from harness.results.schema import checked_rows
from harness.rollout import RolloutEngine, RolloutRequest, Sampling
from harness.seeds import seed_of
from harness.training import ranks
from harness.training.prompts import Prompt
from harness.types import Method, Rollout, StopReason

ALMOST_ONE = 1 - 1e-6  # the largest uniform draw, for a schedule that takes a share of its maximum
REQUESTS_PER_PIECE = 512  # responses of a rank between two writes to disk


@dataclass(frozen=True)
class TeacherResponses:
    """Cached responses by prompt id, end token included where the teacher wrote one."""

    completion_ids: dict[str, tuple[int, ...]]
    stop_ids: tuple[int, ...]

    def text_of(self, prompt: Prompt) -> tuple[int, ...]:
        """The response without its end token: what a prefix may be cut from."""
        ids = self.completion_ids[prompt.prompt_id]
        return ids[:-1] if ids and ids[-1] in self.stop_ids else ids


@dataclass(frozen=True)
class ResponseRow:
    """A line of the cache."""

    prompt_id: str
    ids: tuple[int, ...]  # end token included


@dataclass(frozen=True)
class Draw:
    """Whose texts, and for whom they were drawn."""

    teacher: str  # its identity
    seed: int | None = None  # the training seed; None: all seeds share them


def fingerprint(teacher: str, prompts: Sequence[Prompt], sampling: Sampling) -> str:
    """16 hex digits that change with the teacher, any prompt's tokens or the sampling."""
    digest = hashlib.sha256(json.dumps([teacher, repr(sampling)]).encode())
    for prompt in prompts:
        digest.update(json.dumps([prompt.prompt_id, prompt.ids]).encode())
    return digest.hexdigest()[:16]


def load_or_make_responses(
    folder: Path,
    draw: Draw,
    engine: RolloutEngine,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    needed: Sequence[int],
    make_bar: MakeBar = terminal_bar,
) -> TeacherResponses:
    """Temperature-1 responses for the prompts with the indices `needed`: from the cache, or made and added to it.

    A response depends on its prompt and the training seed alone, so the cache serves every method. Safe to call from
    several processes at once: one of them makes what is missing, of which the ranks of a run share the work by their
    engine (shared_engine), and the others read it.
    """
    drawn_for = () if draw.seed is None else (draw.seed,)
    name = "-".join(
        ["responses", fingerprint(draw.teacher, prompts, sampling), *(f"seed{number}" for number in drawn_for)]
    )
    path = folder / f"{name}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        found = _read(path)
        missing = [prompts[i] for i in sorted(set(needed)) if prompts[i].prompt_id not in found]
        if missing:
            with path.open("a") as sink, make_bar("teacher responses", len(missing), "responses") as bar:
                size = REQUESTS_PER_PIECE * ranks.count()
                for start in range(0, len(missing), size):
                    piece = missing[start : start + size]
                    requests = [
                        RolloutRequest(p.prompt_id, p.ids, seed_of("teacher_responses", p.prompt_id, *drawn_for))
                        for p in piece
                    ]
                    for rollout in engine.generate(requests, sampling):
                        row = {"prompt_id": rollout.prompt_id, "ids": rollout.completion_ids}
                        sink.write(row_text(row))
                        found[rollout.prompt_id] = rollout.completion_ids
                    sink.flush()
                    bar.advance(len(piece))
    return TeacherResponses(found, sampling.stop_ids)


def _read(path: Path) -> dict[str, tuple[int, ...]]:
    """The cached responses by prompt id; a last line that a crash cut in half is dropped from the file."""
    cut_torn_line(path)
    mend = "delete the line to have it made again"
    rows = checked_rows(path, ResponseRow, torn_last_line="refuse", way_out=mend)
    return {row["prompt_id"]: tuple(row["ids"]) for _, row in rows}


def first_guided_step(method: Method, texts: Sequence[Sequence[int]], steps: int, min_continuation: int) -> int | None:
    """The first of the steps in which one of these teacher texts could give a prefix, by the largest draw; or None."""
    draws = torch.full((len(texts),), ALMOST_ONE)
    guided = (
        any(choose_prefixes(method, texts, k / steps, draws, min_continuation=min_continuation)) for k in range(steps)
    )
    return next((step for step, is_guided in enumerate(guided) if is_guided), None)


def check_responses(method: Method, texts: Sequence[Sequence[int]], steps: int, min_continuation: int) -> None:
    """At the start: UserError if the teacher's texts give no step a prefix, a warning if they give the first one none.

    Args: texts, the teacher's responses without end token to the prompts of the run.
    """
    first = first_guided_step(method, texts, steps, min_continuation)
    longest = max(map(len, texts))
    problem = (
        f"the teacher's texts have at most {longest} tokens, of which setting.min_continuation={min_continuation} "
        "are the student's"
    )
    if first is None:
        raise UserError(
            f"no step would get a prefix by the teacher: {problem}; give a smaller one, or another teacher."
        )
    if first > 0:
        print(f"warning: no step before step {first + 1} gets a prefix by the teacher: {problem}", file=sys.stderr)


def prefix_metrics(
    method: Method,
    responses: Sequence[Sequence[int]],
    progress: float,
    uniforms: Tensor,
    prefixes: Sequence[Sequence[int]],
) -> dict[str, float]:
    """Teacher tokens that the method asked for and got, per prompt, and the share of prompts that asked in vain."""
    asked = method.prefix_lengths(progress, _lengths(responses), uniforms).clamp_min(0)
    given = _lengths(prefixes)
    return {
        "guidance/asked": float(asked.float().mean()),
        "guidance/given": float(given.float().mean()),
        "guidance/in_vain_frac": float(((asked > 0) & (given == 0)).float().mean()),
    }


def choose_prefixes(
    method: Method, responses: Sequence[Sequence[int]], progress: float, uniforms: Tensor, min_continuation: int
) -> list[tuple[int, ...]]:
    """The teacher prefix of each prompt: the method says how long, the Setting how much the student must be left to
    write.

    Args: responses, P teacher texts without end token; progress in [0, 1]; uniforms [P] in [0, 1).
    """
    lengths = _lengths(responses)
    wanted = method.prefix_lengths(progress, lengths, uniforms)
    longest = (lengths - min_continuation).clamp_min(0)
    cut = torch.minimum(wanted.clamp_min(0), longest)
    return [tuple(ids[:n]) for ids, n in zip(responses, cut.tolist(), strict=True)]


def _lengths(texts: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([len(ids) for ids in texts], dtype=torch.long)


def as_rollout(prompt: Prompt, writer: str, responses: TeacherResponses | None, sampling: Sampling) -> Rollout:
    """A completion that somebody else wrote, whole, its end token included.

    Where the end tokens of `sampling` count as one, every one of them becomes the one that stands for all.
    """
    ids = prompt.reference_ids if writer == "reference" else responses and responses.completion_ids[prompt.prompt_id]
    if not ids:
        raise RuntimeError(f"prompt {prompt.prompt_id!r} has no {writer} response")
    stop: StopReason = "stop" if ids[-1] in sampling.stop_ids else "length"
    written = tuple(sampling.end_ids[0] if i in sampling.end_ids else i for i in ids)
    unknown, name = (0.0,) * len(ids), prompt.prompt_id
    return Rollout(
        prompt.ids, written, len(ids), unknown, policy_version=0, stop_reason=stop, prompt_id=name, sample_index=0
    )
