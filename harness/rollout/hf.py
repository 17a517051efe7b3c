"""The default rollout engine: a batched KV-cache sampler over any transformers causal LM with attention caches.

Against `model.generate` it saves work in three places: ragged prompts and prefixes are prefilled in groups of
(nearly) equal length, and only once
when several samples share them; finished rows leave the batch; log-probs come from the pass that sampled. The token
at a position is a function of
the request's seed and the model alone, not of what else is in the batch.

Shape legend: B rows in the batch, L cached positions, V vocabulary.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from harness.errors import UserError
from harness.models.backbone import hidden_states
from harness.models.head import head_of
from harness.models.loading import context_length
from harness.numerics.logprobs import project
from harness.rollout import Finished, Progress, RolloutRequest, Sampling
from harness.types import Rollout

FORWARD_COST_TOKENS = (
    192  # a forward pass costs about this many tokens of work before the first token; decides how prefills are grouped
)
COMPACT_BELOW = 0.8  # finished rows leave the batch once fewer than this share is alive


class HFEngine:
    """Samples from the live weights of a transformers model (`model` may be in training: nothing is copied)."""

    def __init__(
        self, model: PreTrainedModel, vocab_size: int, policy_version: int = 0, rows_per_batch: int | None = None
    ) -> None:
        self.model = model
        self.rows_per_batch = rows_per_batch  # completions decoded side by side; None: all
        self.vocab_size = vocab_size  # of the softmax: the shared vocabulary
        self.policy_version = policy_version

    @torch.inference_mode()
    def generate(
        self,
        requests: Sequence[RolloutRequest],
        sampling: Sampling,
        progress: Progress | None = None,
        finished: Finished | None = None,
    ) -> list[Rollout]:
        """See RolloutEngine. Rows of a similar length are decoded together; the order of the answer is the order of the requests."""
        was_training = self.model.training
        self.model.eval()
        room = context_length(self.model)
        for request in requests:
            if len(request.prompt_ids) + len(request.prefix_ids) >= room:
                raise UserError(
                    f"prompt {request.prompt_id!r} has no room for a completion in the model's context of {room} tokens."
                )
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_ids) + len(requests[i].prefix_ids))
        rollouts: dict[int, Rollout] = {}
        side_by_side = self.rows_per_batch or max(1, len(order))
        for start in range(0, len(order), side_by_side):
            rows = order[start : start + side_by_side]
            batch = _Batch(self, [requests[i] for i in rows], sampling)
            for row, rollout in batch.run(progress):
                rollouts[rows[row]] = rollout
                if finished is not None:
                    finished(rows[row], rollout)
        self.model.train(was_training)
        return [rollouts[i] for i in range(len(requests))]


@dataclass
class _Prefilled:
    """The state after the prompts: caches left-padded to one length, and the distribution of every row's first new token."""

    cache: DynamicCache
    attention: Tensor  # [B, L] long, 0 at left padding
    logits: Tensor  # [B, V]
    prefix_logprobs: list[list[float]]  # per row


class _Batch:
    """One batch of requests from prefill to the last stop token."""

    def __init__(self, engine: HFEngine, requests: Sequence[RolloutRequest], sampling: Sampling) -> None:
        self.engine, self.requests, self.sampling = engine, requests, sampling
        self.device = engine.model.device
        self.head = head_of(engine.model, engine.vocab_size)
        self.stop_ids = torch.tensor(sampling.stop_ids, device=self.device, dtype=torch.long)
        lengths = [len(r.prompt_ids) + len(r.prefix_ids) for r in requests]
        self.positions = torch.tensor(lengths, device=self.device)  # [B], of the next token
        room = context_length(engine.model)
        self.budgets = torch.tensor([min(sampling.max_new_tokens, room - n) for n in lengths], device=self.device)
        # one uniform per (request, completion position), so that a prefix does not shift the draws after it
        self.uniforms = torch.from_numpy(np.stack([self._row_uniforms(r) for r in requests])).to(self.device)

    def _row_uniforms(self, request: RolloutRequest) -> np.ndarray:
        generator = np.random.Generator(np.random.Philox(request.seed))
        prefix = len(request.prefix_ids)
        return generator.random(prefix + self.sampling.max_new_tokens)[prefix:]

    def run(self, progress: Progress | None) -> Iterator[tuple[int, Rollout]]:
        """Decodes until every row has stopped; yields a row and its completion as it stops."""
        size, steps = len(self.requests), int(self.budgets.max())
        state = self._prefill()
        tokens = torch.zeros(size, steps, dtype=torch.long, device=self.device)
        logprobs = torch.zeros(size, steps, dtype=state.logits.dtype, device=self.device)
        rows, logits, attention = torch.arange(size, device=self.device), state.logits, state.attention
        positions = self.positions.clone()
        alive = torch.ones(size, dtype=torch.bool, device=self.device)
        for step in range(steps):
            drawn, drawn_logprobs = draw_tokens(logits, self.uniforms[rows, step], self.sampling)
            live_rows = rows[alive]
            tokens[live_rows, step], logprobs[live_rows, step] = drawn[alive], drawn_logprobs[alive]
            if progress is not None:
                progress(len(live_rows))
            ends = torch.isin(drawn, self.stop_ids) | (step + 1 >= self.budgets[rows])
            for row in rows[alive & ends].tolist():
                written, written_logprobs = tokens[row, : step + 1].tolist(), logprobs[row, : step + 1].tolist()
                yield row, self._rollout(row, written, [*state.prefix_logprobs[row], *written_logprobs])
            alive &= ~ends
            remaining = int(alive.sum())
            if remaining == 0:
                break
            if remaining < COMPACT_BELOW * len(rows):
                keep = alive.nonzero()[:, 0]
                state.cache.batch_select_indices(keep)
                rows, drawn, positions = rows[keep], drawn[keep], positions[keep]
                attention, alive = attention[keep], alive[keep]
            attention = torch.cat([attention, attention.new_ones(len(rows), 1)], dim=1)
            output = hidden_states(
                self.engine.model,
                drawn[:, None],
                attention_mask=attention,
                position_ids=positions[:, None],
                past_key_values=state.cache,
                use_cache=True,
            )
            logits = self._logits(output.last_hidden_state[:, 0])
            positions = (positions + 1).clamp_max(context_length(self.engine.model) - 1)  # finished rows may run over

    def _logits(self, hidden: Tensor) -> Tensor:
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        bias = None if self.head.bias is None else self.head.bias.to(dtype)
        logits = torch.nn.functional.linear(hidden.to(dtype), self.head.weight.to(dtype), bias)
        return self.head.transform.apply_(logits)

    def _rollout(self, row: int, written: list[int], logprobs: list[float]) -> Rollout:
        request = self.requests[row]
        return Rollout(
            prompt_ids=request.prompt_ids,
            completion_ids=(*request.prefix_ids, *written),
            prefix_len=len(request.prefix_ids),
            logprobs=tuple(logprobs),
            policy_version=self.engine.policy_version,
            stop_reason="stop" if written[-1] in self.sampling.stop_ids else "length",
            prompt_id=request.prompt_id,
            sample_index=request.sample_index,
        )

    def _prefill(self) -> _Prefilled:
        """Runs every distinct prompt + prefix once and lays the caches out left-padded, so that all rows decode side by side."""
        index: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        row_to_unique = [index.setdefault((r.prompt_ids, r.prefix_ids), len(index)) for r in self.requests]
        unique = list(index)
        longest = max(len(prompt) + len(prefix) for prompt, prefix in unique)
        pieces: list[tuple[DynamicCache, Tensor, Tensor]] = []
        prefix_logprobs: list[list[float]] = []
        for group in group_by_length([len(prompt) + len(prefix) for prompt, prefix in unique]):
            members = [unique[i] for i in group]
            cache, attention, hidden = self._prefill_group(members)
            prefix_logprobs += self._prefix_logprobs(members, hidden)
            padding = longest - attention.shape[1]
            pieces.append((cache, torch.nn.functional.pad(attention, (padding, 0)), self._logits(hidden[:, -1])))
        expand = torch.tensor(row_to_unique, device=self.device)
        return _Prefilled(
            cache=_merge_caches([cache for cache, _, _ in pieces], longest, expand),
            attention=torch.cat([attention for _, attention, _ in pieces])[expand],
            logits=torch.cat([logits for _, _, logits in pieces])[expand],
            prefix_logprobs=[prefix_logprobs[i] for i in row_to_unique],
        )

    def _prefill_group(
        self, members: list[tuple[tuple[int, ...], tuple[int, ...]]]
    ) -> tuple[DynamicCache, Tensor, Tensor]:
        sequences = [[*prompt, *prefix] for prompt, prefix in members]
        width = max(map(len, sequences))
        ids = torch.tensor([[0] * (width - len(s)) + s for s in sequences], device=self.device)
        attention = torch.tensor([[0] * (width - len(s)) + [1] * len(s) for s in sequences], device=self.device)
        ragged = min(map(len, sequences)) < width
        output = hidden_states(
            self.engine.model,
            ids,
            attention_mask=attention if ragged else None,
            position_ids=(attention.cumsum(1) - 1).clamp_min(0),
            past_key_values=DynamicCache(),
            use_cache=True,
        )
        cache = output.past_key_values
        if not isinstance(cache, DynamicCache) or any(type(layer) is not DynamicLayer for layer in cache.layers):
            raise UserError(
                f"{type(self.engine.model).__name__} keeps a state other than an attention cache; engine=hf cannot sample from it."
            )
        return cache, attention, output.last_hidden_state

    def _prefix_logprobs(
        self, members: list[tuple[tuple[int, ...], tuple[int, ...]]], hidden: Tensor
    ) -> list[list[float]]:
        """The model's log-probs of the given prefixes: free here, since the prefill has computed the hidden states anyway."""
        width, lengths = hidden.shape[1], [len(prefix) for _, prefix in members]
        if not any(lengths):
            return [[] for _ in members]
        predictors = torch.cat([hidden[i, width - n - 1 : width - 1] for i, n in enumerate(lengths)])
        ids = torch.tensor([t for _, prefix in members for t in prefix], device=self.device)
        flat = project(predictors, self.head, ids[:, None]).logprobs[:, 0].tolist()
        starts = np.cumsum([0, *lengths])
        return [flat[a:b] for a, b in itertools.pairwise(starts)]


def draw_tokens(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draws one token per row by inverting the cumulative distribution at the row's uniform.

    Args: logits [B, V] float32; uniforms [B] float64 in [0, 1).
    Returns: tokens [B]; their log-probs [B] under the model itself (temperature 1, untruncated), whatever the sampling.
    """
    logprobs = logits.log_softmax(-1)
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
    else:
        weights = truncate((logits / sampling.temperature).softmax(-1), sampling.top_p, sampling.top_k)
        cumulative = weights.double().cumsum(-1)
        threshold = uniforms[:, None] * cumulative[:, -1:]  # also renormalises what truncation left
        tokens = (cumulative <= threshold).sum(-1).clamp_max(logits.shape[-1] - 1)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


def truncate(probabilities: Tensor, top_p: float, top_k: int) -> Tensor:
    """Sets to 0 what top-k, then nucleus sampling leave out; [B, V], not renormalised. A token stays if the mass before it is below top_p."""
    if top_k:
        kth = probabilities.topk(min(top_k, probabilities.shape[-1]), dim=-1).values[:, -1:]
        probabilities = torch.where(probabilities >= kth, probabilities, 0.0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    if top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        ordered = torch.where(ordered.cumsum(-1) - ordered < top_p, ordered, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    return probabilities


def group_by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Splits an ascending list of lengths into consecutive groups, each padded to its longest, at the least total cost.

    A group of n sequences costs n times its longest length, plus FORWARD_COST_TOKENS. Dynamic programming over the distinct lengths.
    """
    distinct = sorted(set(lengths))
    up_to = [bisect.bisect_right(lengths, length) for length in distinct]  # how many sequences are at most that long
    best = [(0, 0)]  # cost of the first d distinct lengths, and where their last group begins
    for end in range(1, len(distinct) + 1):
        costs = (
            (best[b][0] + (up_to[end - 1] - (up_to[b - 1] if b else 0)) * distinct[end - 1] + FORWARD_COST_TOKENS, b)
            for b in range(end)
        )
        best.append(min(costs))
    groups: list[list[int]] = []
    end = len(distinct)
    while end:
        begin = best[end][1]
        groups.insert(0, list(range(up_to[begin - 1] if begin else 0, up_to[end - 1])))
        end = begin
    return groups


def _merge_caches(caches: list[DynamicCache], width: int, rows: Tensor) -> DynamicCache:
    """One cache of `width` positions, left-padded with zeros, whose row i is row rows[i] of the concatenation."""
    merged = DynamicCache()
    for layer in range(len(caches[0].layers)):
        for name in ("keys", "values"):
            parts = [getattr(cache.layers[layer], name) for cache in caches]
            parts = [torch.nn.functional.pad(part, (0, 0, width - part.shape[2], 0)) for part in parts]
            if name == "keys":
                keys = torch.cat(parts)[rows]
            else:
                merged.update(keys, torch.cat(parts)[rows], layer)
    return merged
