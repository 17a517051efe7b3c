"""Scoring by vLLM, in process or behind a server (harness.rollout.vllm): log-probs of prompts that are generated no
further.

The first pass asks for the sampled tokens' log-probs, and for more only if the request does. The support of the direct
term is fetched in a second pass, for the positions that got a weight: either as prompt log-probs of their whole
sequence, or as the next token's distribution after each position, whichever is less work.

Shape legend: B sequences, T completion positions, K top-k, R rows asked for, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError
from harness.rollout.vllm import Answer, Backend, Call, Logprobs
from harness.scoring import Completion, ScoreRequest, pad_completions
from harness.types import TokenSignal

ENTROPY_TOP_K = 64  # most probable tokens that an entropy's bounds are made of, where the whole vocabulary is too much
# a request for one row costs as much as this many positions of a sequence's: measured by tests/measure/engines.py on
# small models
ROW_COST_POSITIONS = 35


class VLLMScorer:
    """A Scorer over a Backend."""

    def __init__(self, backend: Backend, vocab_size: int, max_logprobs: int) -> None:
        self.backend, self.vocab_size, self.max_logprobs = backend, vocab_size, max_logprobs

    def score(self, completions: Sequence[Completion], request: ScoreRequest) -> VLLMScored:
        """See Scorer. `at_ids` is not offered: the trainer scores its own student."""
        if request.at_ids is not None:
            raise NotImplementedError("vLLM scores its own top k; log-probs at given ids are the trainer's work")
        width = request.top_k
        if request.entropy:
            whole = self.vocab_size <= self.max_logprobs
            width = self.vocab_size if whole else max(width, min(ENTROPY_TOP_K, self.max_logprobs))
        mask, _ = pad_completions(completions)
        logprobs = torch.zeros(mask.shape)
        ids = torch.zeros(*mask.shape, width, dtype=torch.long)
        values = torch.zeros(*mask.shape, width)

        def done(index: int, answer: Answer) -> None:
            length = len(completions[index].completion_ids)
            found = _completion_part(answer, length)
            logprobs[index, :length] = torch.from_numpy(found.chosen)
            ids[index, :length] = torch.from_numpy(found.topk_ids)
            values[index, :length] = torch.from_numpy(found.topk)

        self.backend.run([self._call(completion, width) for completion in completions], done)
        entropy, entropy_upper = None, None
        if request.entropy:
            entropy, upper = entropy_bounds(values, self.vocab_size)
            entropy, upper = torch.where(mask, entropy, 0.0), torch.where(mask, upper, 0.0)
            entropy_upper = None if width == self.vocab_size else upper
        top_k = request.top_k
        signal = TokenSignal(
            logprobs=logprobs,
            topk_ids=ids[..., :top_k] if top_k else None,
            topk_logprobs=values[..., :top_k] if top_k else None,
            entropy=entropy,
            entropy_upper=entropy_upper,
        )
        return VLLMScored(signal=signal, scorer=self, completions=completions, fetched_ids=ids, fetched=values)

    def _call(self, completion: Completion, top_k: int) -> Call:
        ids = (*completion.prompt_ids, *completion.completion_ids)
        self._check_room(len(ids))
        return Call(ids, {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": top_k, "ignore_eos": True})

    def _row_call(self, completion: Completion, position: int, top_k: int) -> Call:
        ids = (*completion.prompt_ids, *completion.completion_ids[:position])
        return Call(ids, {"max_tokens": 1, "temperature": 0.0, "logprobs": top_k, "ignore_eos": True})

    def _check_room(self, tokens: int) -> None:
        if tokens >= self.backend.max_length:  # vLLM writes at least one token
            raise UserError(
                f"a sequence of {tokens} tokens is to be scored, and the teacher's engine takes at most "
                f"{self.backend.max_length - 1}; give a smaller setting.max_new_tokens, or engine.teacher=hf."
            )


@dataclass
class VLLMScored:
    """The answer of a VLLMScorer."""

    signal: TokenSignal
    scorer: VLLMScorer
    completions: Sequence[Completion]
    fetched_ids: Tensor  # [B, T, K'], what the first pass brought; K' may be 0
    fetched: Tensor  # [B, T, K']

    def support(self, mask: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
        """See Scored."""
        if top_k <= self.fetched.shape[-1]:
            return self.fetched_ids[mask][:, :top_k], self.fetched[mask][:, :top_k]
        if top_k > self.scorer.max_logprobs:
            raise UserError(
                f"{top_k} log-probs a position are needed of the teacher, "
                f"engine.vllm.max_logprobs={self.scorer.max_logprobs}."
            )
        calls: list[Call] = []
        places: list[tuple[int, list[int]]] = []  # per call: its sequence, and the positions that it answers
        for index in mask.any(1).nonzero()[:, 0].tolist():
            rows = mask[index].nonzero()[:, 0].tolist()
            completion = self.completions[index]
            tokens = len(completion.prompt_ids) + len(completion.completion_ids)
            if len(rows) * ROW_COST_POSITIONS < tokens:
                calls += [self.scorer._row_call(completion, position, top_k) for position in rows]
                places += [(index, [position]) for position in rows]
            else:
                calls.append(self.scorer._call(completion, top_k))
                places.append((index, rows))
        ids = torch.zeros(*mask.shape, top_k, dtype=torch.long)
        values = torch.zeros(*mask.shape, top_k)

        def done(call: int, answer: Answer) -> None:
            index, rows = places[call]
            if answer.prompt is None:
                assert answer.written is not None  # a row's call
                found, take = answer.written, np.zeros(1, dtype=np.int64)
            else:
                found, take = _completion_part(answer, len(self.completions[index].completion_ids)), np.asarray(rows)
            ids[index, rows] = torch.from_numpy(found.topk_ids[take])
            values[index, rows] = torch.from_numpy(found.topk[take])

        if calls:
            self.scorer.backend.run(calls, done)
        return ids[mask], values[mask]


def _completion_part(answer: Answer, length: int) -> Logprobs:
    """The last `length` positions of a scored sequence."""
    assert answer.prompt is not None  # asked for
    found = answer.prompt
    start = len(found.chosen) - length
    return Logprobs(found.chosen[start:], found.topk_ids[start:], found.topk[start:])


def entropy_bounds(topk: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Bounds of the entropy over V tokens, nats, from the log-probs [..., K] of the K most probable.

    The rest of the mass counts as one token for the lower bound, and as spread evenly over the V − K others for the
    upper one. With K = V both are the entropy itself.
    """
    topk = topk.double()
    known = -(topk.exp() * topk.clamp_min(torch.finfo(topk.dtype).min)).sum(-1)
    others = vocab_size - topk.shape[-1]
    if others == 0:
        return known.float(), known.float()
    tail = (1 - topk.exp().sum(-1)).clamp_min(0)
    lower = known - torch.special.xlogy(tail, tail)
    return lower.float(), (lower + tail * np.log(others)).float()
