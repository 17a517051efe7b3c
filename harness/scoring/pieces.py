"""Scoring completions while others are still being written, with the numbers of scoring them all at the end.

A completion's log-probs depend on itself alone, so any grouping gives the same answer but for rounding. Useful where
the scorer works elsewhere than the engine: on another device (engine.teacher_device) or behind a server.

Shape legend: B completions, T positions, R positions asked for, K top-k, H hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from harness.numerics.loss import TeacherRows
from harness.scoring import Completion, Scored, Scorer, ScoreRequest, WholeScored
from harness.types import Rollout, TokenSignal

PerToken = TypeVar("PerToken")  # a record whose fields are tensors [B, T, …], or None after the first
PIECES = 8  # of a step, at most, that are scored one after the other


def join_rows(pieces: Sequence[tuple[Sequence[int], PerToken]]) -> PerToken:
    """One record of tensors [B, T, …], padded with 0, from records of some of its rows each; they may be narrower."""
    count = sum(len(rows) for rows, _ in pieces)
    width = max(next(iter(vars(piece).values())).shape[1] for _, piece in pieces)

    def joined(name: str) -> Tensor | None:
        first = getattr(pieces[0][1], name)
        if first is None:
            return None
        whole = first.new_zeros(count, width, *first.shape[2:])
        for rows, piece in pieces:
            values = getattr(piece, name)
            whole[list(rows), : values.shape[1]] = values
        return whole

    return type(pieces[0][1])(**{name: joined(name) for name in vars(pieces[0][1])})


@dataclass
class JoinedScored:
    """The answers for some rows each, as one."""

    pieces: list[tuple[list[int], Scored]]
    signal: TokenSignal

    def support(self, mask: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
        """See Scored."""
        found = [piece.support(own, top_k) for own, piece in self._asked(mask)]
        ids, logprobs = (torch.cat(column) for column in zip(*found, strict=True))
        order = self._order(mask)
        return ids[order], logprobs[order]

    def _asked(self, mask: Tensor) -> list[tuple[Tensor, Scored]]:
        return [(mask[rows, : piece.signal.logprobs.shape[1]], piece) for rows, piece in self.pieces]

    def _order(self, mask: Tensor) -> Tensor:
        """Where each of the R positions of the mask stands among those of the pieces one after the other."""
        numbers = torch.full(mask.shape, -1)
        numbers[mask] = torch.arange(int(mask.sum()))
        return torch.cat([numbers[rows][mask[rows]] for rows, _ in self.pieces]).argsort()


class JoinedWholeScored(JoinedScored):
    """Where every piece can give its whole distributions."""

    def whole(self, mask: Tensor) -> TeacherRows:
        """See WholeScored."""
        found = [piece.whole(own) for own, piece in self._asked(mask) if isinstance(piece, WholeScored)]
        hidden = torch.cat([rows.hidden for rows in found])
        return replace(found[0], hidden=hidden[self._order(mask).to(hidden.device)])


class EagerScoring:
    """Collects completions as they finish, and has them scored in a thread of its own, a share of
    the step at a time.
    """

    def __init__(self, scorer: Scorer, request: ScoreRequest, expected: int) -> None:
        self._scorer, self._request = scorer, request
        self._share = -(-expected // PIECES)
        self._waiting: list[tuple[int, Rollout]] = []
        self._scored: list[tuple[list[int], Future[Scored]]] = []
        self._thread = ThreadPoolExecutor(1)

    def finished(self, row: int, rollout: Rollout) -> None:
        """Has the signature of rollout.Finished."""
        self._waiting.append((row, rollout))
        if len(self._waiting) >= self._share:
            self._submit()

    def result(self) -> JoinedScored:
        """Waits for the rest; the error of a piece is raised here."""
        if self._waiting:
            self._submit()
        try:
            pieces = [(rows, future.result()) for rows, future in self._scored]
        finally:
            self._thread.shutdown(cancel_futures=True)
        signal = join_rows([(rows, piece.signal) for rows, piece in pieces])
        whole = all(isinstance(piece, WholeScored) for _, piece in pieces)
        return (JoinedWholeScored if whole else JoinedScored)(pieces, signal)

    def _submit(self) -> None:
        rows = [row for row, _ in self._waiting]
        completions = [Completion(r.prompt_ids, r.completion_ids) for _, r in self._waiting]
        self._scored.append((rows, self._thread.submit(self._scorer.score, completions, self._request)))
        self._waiting = []
