"""From hidden states to log-probs, in chunks: `[tokens, vocabulary]` never exists as a whole.

Shape legend: N token positions, H hidden width, V vocabulary, M ids asked for at a position, K top-k.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CHUNK_BYTES = 2**28  # of fp32 logits at a time; 256 MiB is 441 positions of a 152k vocabulary


@dataclass(frozen=True)
class Projection:
    """What one pass over the head gives; a field is None unless it was asked for."""

    logprobs: Tensor  # [N, M], of the given ids, under the full softmax
    entropy: Tensor | None = None  # [N], nats
    topk_ids: Tensor | None = None  # [N, K], most probable first
    topk_logprobs: Tensor | None = None  # [N, K]


def project(
    hidden: Tensor,
    head_weight: Tensor,
    ids: Tensor,
    *,
    head_bias: Tensor | None = None,
    top_k: int = 0,
    entropy: bool = False,
    chunk_rows: int | None = None,
) -> Projection:
    """Log-probs of `ids` under softmax(hidden @ head_weight.T + head_bias), in float32 arithmetic (float64 if the inputs are).

    Differentiable in hidden, head_weight and head_bias through `logprobs`. The chunk size changes memory, never
    the meaning.

    Args:
        hidden: [N, H]; head_weight: [V, H], already sliced to the shared vocabulary; head_bias: [V] or None.
        ids: [N, M] long, each in [0, V).
        top_k: how many of the most probable ids to return; 0 for none.
        entropy: whether to return the entropy over the whole vocabulary.
        chunk_rows: positions per chunk; None: as many as CHUNK_BYTES of logits hold.
    """
    if hidden.dim() != 2 or ids.dim() != 2 or hidden.shape[0] != ids.shape[0]:
        raise ValueError(f"expected hidden [N, H] and ids [N, M], got {tuple(hidden.shape)} and {tuple(ids.shape)}")
    chunk_rows = chunk_rows or max(1, CHUNK_BYTES // (4 * head_weight.shape[0]))
    if hidden.shape[0] <= chunk_rows:
        return Projection(*_project_chunk(hidden, head_weight, head_bias, ids, top_k, entropy))
    pieces = []
    for start in range(0, hidden.shape[0], chunk_rows):
        rows = slice(start, start + chunk_rows)
        arguments = (hidden[rows], head_weight, head_bias, ids[rows], top_k, entropy)
        if torch.is_grad_enabled():  # the chunk's logits are computed again in the backward pass instead of kept
            pieces.append(checkpoint(_project_chunk, *arguments, use_reentrant=False))
        else:
            pieces.append(_project_chunk(*arguments))
    logprobs, entropies, topk_ids, topk_logprobs = zip(*pieces, strict=True)
    return Projection(torch.cat(logprobs), _joined(entropies), _joined(topk_ids), _joined(topk_logprobs))


def _joined(pieces: Sequence[Tensor | None]) -> Tensor | None:
    found = [piece for piece in pieces if piece is not None]
    return torch.cat(found) if found else None


def _project_chunk(
    hidden: Tensor, head_weight: Tensor, head_bias: Tensor | None, ids: Tensor, top_k: int, entropy: bool
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    logits = F.linear(hidden.to(dtype), head_weight.to(dtype), None if head_bias is None else head_bias.to(dtype))
    logprobs = logits.log_softmax(-1)
    entropies = topk_ids = topk_logprobs = None
    if entropy:
        # probability 0 times log-probability -inf is 0 here, not NaN
        entropies = -(logprobs.exp() * logprobs.clamp_min(torch.finfo(dtype).min)).sum(-1)
    if top_k:
        topk_logprobs, topk_ids = logprobs.topk(top_k, dim=-1)
    return logprobs.gather(-1, ids), entropies, topk_ids, topk_logprobs
