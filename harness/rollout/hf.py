"""The default rollout engine: a batched KV-cache sampler over any transformers causal LM; caches other than attention's
are left to the model (harness.rollout.own_cache).

Against `model.generate` it saves work in three places: ragged prompts and prefixes are prefilled in groups of (nearly)
equal length, and only once when several samples share them; finished rows leave the batch; log-probs come from the pass
that sampled. The token at a position is a function of the request's seed and the model alone, not of what else is in
the batch.

Shape legend: B rows in the batch, L cached positions, V vocabulary.
"""

from __future__ import annotations

import bisect
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from harness.errors import UserError
from harness.models.backbone import backbone_of, cache_name, evaluating, hidden_states, probe_ids, rounding
from harness.models.contexts import context_length
from harness.models.head import head_of
from harness.numerics.logprobs import arithmetic_dtype, logits_of, project
from harness.rollout import Finished, Progress, RolloutRequest, Sampling
from harness.rollout.attention_cache import AttentionState, merge_caches
from harness.rollout.own_cache import AGAIN, ATTENTION, EQUAL, RAGGED, OwnState, Way
from harness.types import Rollout

FORWARD_COST_TOKENS = 192  # what a forward pass costs before its first token; decides how prefills are grouped
COMPACT_BELOW = 0.8  # finished rows leave the batch once fewer than this share is alive
DRAW_BYTES = 2**23  # of logits that are drawn from at a time: what is made of them stays in memory that is used again
BLOCK_IDS = 1024  # of a large vocabulary, summed together before one of them is drawn
ALMOST_ONE = 1 - 2**-53  # the largest float64 below 1


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
        """See RolloutEngine. Rows of a similar length are decoded together; answers are in the requests' order."""
        room = context_length(self.model)
        for request in requests:
            if len(request.prompt_ids) + len(request.prefix_ids) >= room:
                raise UserError(
                    f"prompt {request.prompt_id!r} has no room for a completion in the model's context of {room}."
                )
        with evaluating(self.model):
            way = way_of(self)
            rollouts: dict[int, Rollout] = {}
            for rows in self._batches(requests, way):
                for row, rollout in _Batch(self, [requests[i] for i in rows], sampling, way).run(progress):
                    rollouts[rows[row]] = rollout
                    if finished is not None:
                        finished(rows[row], rollout)
        return [rollouts[i] for i in range(len(requests))]

    def _batches(self, requests: Sequence[RolloutRequest], way: Way) -> Iterator[list[int]]:
        """Indices of the requests that are decoded together."""
        lengths = [len(request.prompt_ids) + len(request.prefix_ids) for request in requests]
        order = sorted(range(len(requests)), key=lengths.__getitem__)
        parts = [order] if way.ragged else [list(part) for _, part in itertools.groupby(order, key=lengths.__getitem__)]
        for part in parts:
            side_by_side = self.rows_per_batch or max(1, len(part))
            for start in range(0, len(part), side_by_side):
                yield part[start : start + side_by_side]


_WAYS: WeakKeyDictionary[PreTrainedModel, Way] = WeakKeyDictionary()


def way_of(engine: HFEngine) -> Way:
    """How the model is sampled from: the first way whose log-probs are those of whole forward passes, tried once.

    Padding that leaks into a state can be smaller than what half types round away: rows of different length share a
    batch only if that is no worse than rows of one length. UserError if no way is right.
    """
    model = engine.model
    if model not in _WAYS:
        limit = rounding(model.dtype)
        found = ATTENTION if _error(engine, ATTENTION) <= limit else None
        if found is None:
            equal, floor = _error(engine, EQUAL), 0 if model.dtype.itemsize == 2 else limit / 16
            ways = {RAGGED: min(limit, 2 * equal + floor), EQUAL: limit, AGAIN: limit}
            found = next((way for way, allowed in ways.items() if _error(engine, way) <= allowed), None)
        if found is None:
            raise UserError(
                f"{type(model).__name__} cannot be sampled from by engine=hf: with its cache it gives other log-probs "
                "than without; give engine=vllm."
            )
        if found.said is not None:
            print(f"note: {type(model).__name__} {found.said}.", file=sys.stderr)
        _WAYS[model] = found
    return _WAYS[model]


@torch.no_grad()
def _error(engine: HFEngine, way: Way) -> float:
    """How far log-probs are from those of whole forward passes, on four rows of three lengths, one with a prefix.

    Returns: the mean difference, relative to the largest logit (or 1 nat); infinite for a class that cannot take it.
    """
    ids = tuple(probe_ids(engine.model, min(32, context_length(engine.model) // 2))[0].tolist())
    requests = [RolloutRequest(str(i), prompt, 0) for i, prompt in enumerate((ids[:3], ids[5:8], ids))]
    requests.append(RolloutRequest("prefix", ids[:4], 0, prefix_ids=ids[4:6]))
    sampling = Sampling(max_new_tokens=4, temperature=0.0)
    apart, largest = [], 1.0
    try:
        for rows in engine._batches(requests, way):
            for _, rollout in _Batch(engine, [requests[i] for i in rows], sampling, way).run(None):
                whole = torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]], device=engine.model.device)
                states = hidden_states(engine.model, whole, use_cache=False).last_hidden_state[0]
                logits = logits_of(states[len(rollout.prompt_ids) - 1 : -1], head_of(engine.model, engine.vocab_size))
                expected = logits.log_softmax(-1)[range(len(logits)), list(rollout.completion_ids)]
                apart.append((expected.cpu().double() - torch.tensor(rollout.logprobs, dtype=torch.float64)).abs())
                largest = max(largest, float(logits.abs().max()))
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a class that is not made for this way raises anything
        return math.inf
    error = float(torch.cat(apart).mean()) / largest
    return math.inf if math.isnan(error) else error


@dataclass
class _Prefilled:
    """The state after the prompts, and the distribution of every row's first new token."""

    state: AttentionState | OwnState
    logits: Tensor  # [B, V]
    prefix_logprobs: list[list[float]]  # per row


class _Batch:
    """One batch of requests from prefill to the last stop token."""

    def __init__(
        self, engine: HFEngine, requests: Sequence[RolloutRequest], sampling: Sampling, way: Way = ATTENTION
    ) -> None:
        self.engine, self.requests, self.sampling, self.way = engine, requests, sampling, way
        self.device = engine.model.device
        self.head = head_of(engine.model, engine.vocab_size, sampling.end_ids)
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
        begun = self._prefill_own() if self.way.own_cache else self._prefill()
        tokens = torch.zeros(size, steps, dtype=torch.long, device=self.device)
        logprobs = torch.zeros(size, steps, dtype=begun.logits.dtype, device=self.device)
        stops = torch.zeros_like(logprobs) if self.sampling.record_stops else logprobs[:, :0]
        rows, logits, state = torch.arange(size, device=self.device), begun.logits, begun.state
        alive = torch.ones(size, dtype=torch.bool, device=self.device)
        buffer: Tensor | None = None  # [B, V]
        for step in range(steps):
            drawn, drawn_logprobs = draw_tokens(logits, self.uniforms[rows, step], self.sampling)
            live_rows = rows[alive]
            tokens[live_rows, step], logprobs[live_rows, step] = drawn[alive], drawn_logprobs[alive]
            if self.sampling.record_stops:
                stops[live_rows, step] = stop_logprobs(logits, self.stop_ids)[alive]
            if progress is not None:
                progress(len(live_rows))
            ends = torch.isin(drawn, self.stop_ids) | (step + 1 >= self.budgets[rows])
            for row in rows[alive & ends].tolist():
                written, written_logprobs, ended = (x[row, : step + 1].tolist() for x in (tokens, logprobs, stops))
                yield row, self._rollout(row, written, [*begun.prefix_logprobs[row], *written_logprobs], ended)
            alive &= ~ends
            remaining = int(alive.sum())
            if remaining == 0:
                break
            if remaining < COMPACT_BELOW * len(rows) and state.can_select:
                keep = alive.nonzero()[:, 0]
                state.select(keep)
                rows, drawn, alive = rows[keep], drawn[keep], alive[keep]
            hidden = state.step(drawn)
            if buffer is None:  # one for all steps: fresh pages for every step's logits cost more than filling them
                buffer = hidden.new_empty(size, len(self.head.weight), dtype=arithmetic_dtype(hidden))
            logits = logits_of(hidden, self.head, out=buffer[: len(hidden)])

    def _rollout(self, row: int, written: list[int], logprobs: list[float], stops: list[float]) -> Rollout:
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
            stop_logprobs=tuple(stops),
        )

    def _prefill(self) -> _Prefilled:
        """Runs every distinct prompt + prefix once and lays the caches out left-padded, so that all rows decode side by
        side.
        """
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
            pieces.append(
                (cache, torch.nn.functional.pad(attention, (padding, 0)), logits_of(hidden[:, -1], self.head))
            )
        expand = torch.tensor(row_to_unique, device=self.device)
        state = AttentionState(
            self.engine.model,
            cache=merge_caches([cache for cache, _, _ in pieces], longest, expand),
            attention=torch.cat([attention for _, attention, _ in pieces])[expand],
            positions=self.positions.clone(),
        )
        logits = torch.cat([logits for _, _, logits in pieces])[expand]
        return _Prefilled(state, logits, [prefix_logprobs[i] for i in row_to_unique])

    def _prefill_own(self) -> _Prefilled:
        """Likewise in the model's own cache, which cannot be taken apart: rows with the same prompt run it each for
        itself.
        """
        members = [(request.prompt_ids, request.prefix_ids) for request in self.requests]
        state = OwnState(self.engine.model, [[*prompt, *prefix] for prompt, prefix in members], self.way)
        return _Prefilled(
            state, logits_of(state.hidden[:, -1], self.head), self._prefix_logprobs(members, state.hidden)
        )

    def _prefill_group(
        self, members: list[tuple[tuple[int, ...], tuple[int, ...]]]
    ) -> tuple[DynamicCache, Tensor, Tensor]:
        sequences = [[*prompt, *prefix] for prompt, prefix in members]
        width = max(map(len, sequences))
        ids = torch.tensor([[0] * (width - len(s)) + s for s in sequences], device=self.device)
        attention = torch.tensor([[0] * (width - len(s)) + [1] * len(s) for s in sequences], device=self.device)
        ragged = min(map(len, sequences)) < width
        name = cache_name(backbone_of(self.engine.model))
        output = hidden_states(
            self.engine.model,
            ids,
            attention_mask=attention if ragged else None,
            position_ids=(attention.cumsum(1) - 1).clamp_min(0),
            use_cache=True,
            **{name: DynamicCache()},
        )
        cache = getattr(output, name)
        if not isinstance(cache, DynamicCache) or any(type(layer) is not DynamicLayer for layer in cache.layers):
            raise TypeError(f"{type(self.engine.model).__name__} keeps a state other than an attention cache")
        return cache, attention, output.last_hidden_state

    def _prefix_logprobs(
        self, members: list[tuple[tuple[int, ...], tuple[int, ...]]], hidden: Tensor
    ) -> list[list[float]]:
        """The model's log-probs of the given prefixes: free here, since the prefill has computed the hidden states
        anyway.
        """
        width, lengths = hidden.shape[1], [len(prefix) for _, prefix in members]
        if not any(lengths):
            return [[] for _ in members]
        predictors = torch.cat([hidden[i, width - n - 1 : width - 1] for i, n in enumerate(lengths)])
        ids = torch.tensor([t for _, prefix in members for t in prefix], device=self.device)
        flat = project(predictors, self.head, ids[:, None]).logprobs[:, 0].tolist()
        starts = np.cumsum([0, *lengths])
        return [flat[a:b] for a, b in itertools.pairwise(starts)]


def stop_logprobs(logits: Tensor, stop_ids: Tensor) -> Tensor:
    """Log-probs of any of the ids, [B], under the softmax of logits [B, V]; −inf where there are none."""
    return logits[:, stop_ids].logsumexp(-1) - logits.logsumexp(-1)


def draw_tokens(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draws one token per row by inverting the cumulative distribution at the row's uniform.

    Args: logits [B, V] float32; uniforms [B] float64 in [0, 1).
    Returns: tokens [B]; their log-probs [B] under the model itself (temperature 1, untruncated), whatever the sampling.
    """
    rows = max(1, DRAW_BYTES // (4 * logits.shape[-1]))
    if len(logits) > rows:
        pieces = [
            draw_tokens(some, draws, sampling)
            for some, draws in zip(logits.split(rows), uniforms.split(rows), strict=True)
        ]
        tokens, logprobs = (torch.cat(part) for part in zip(*pieces, strict=True))
        return tokens, logprobs
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
    else:
        weights = truncate((logits / sampling.temperature).softmax(-1), sampling.top_p, sampling.top_k)
        tokens = invert(weights, uniforms)
    return tokens, logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]


def invert(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The id [B] at which the cumulative sum of weights [B, V] passes the share uniforms [B] of the whole sum.

    In float64, since a long tail of rare tokens would not move a sum in float32. Weights need not sum to 1, and an id
    of weight 0 is never found. Large vocabularies are summed block by block first: the block, then the id in it.
    """
    size = weights.shape[-1]
    if size > 2 * BLOCK_IDS:
        blocks = torch.nn.functional.pad(weights, (0, -size % BLOCK_IDS)).unflatten(-1, (-1, BLOCK_IDS))
        sums = blocks.sum(-1, dtype=torch.float64)
        block, up_to = invert(sums, uniforms)[:, None], sums.cumsum(-1)
        own = sums.gather(-1, block)
        share = (uniforms[:, None] * up_to[:, -1:] - up_to.gather(-1, block) + own) / own
        inside = blocks.gather(1, block[..., None].expand(-1, 1, BLOCK_IDS))[:, 0]
        return block[:, 0] * BLOCK_IDS + invert(inside, share[:, 0].clamp(0, ALMOST_ONE))
    cumulative = weights.double().cumsum(-1)
    threshold = uniforms[:, None] * cumulative[:, -1:]  # also renormalises what truncation left
    return (cumulative <= threshold).sum(-1).clamp_max(size - 1)


def truncate(probabilities: Tensor, top_p: float, top_k: int) -> Tensor:
    """Sets to 0 what top-k, then nucleus sampling leave out; [B, V], not renormalised. A token stays if the mass before
    it is below top_p.
    """
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

    A group of n sequences costs n times its longest length, plus FORWARD_COST_TOKENS. Dynamic programming over the
    distinct lengths.
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
