"""From hidden states to log-probs, in chunks: `[tokens, vocabulary]` never exists as a whole. Without gradient;
harness.numerics.loss has the one with.

Arithmetic is in float32 over weights of any type (float64 if the inputs are), one buffer of logits at a time. Products
of two narrow numbers are exact in float32; a GPU takes the narrow operands as they are and sums in float32, elsewhere
the head is widened block by block.

Shape legend: N token positions, H hidden width, V vocabulary, M ids asked for at a position, K top-k.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_BYTES = 2**26  # of fp32 logits at a time; 64 MiB is 110 positions of a 152k vocabulary
BLOCK_BYTES = 2**22  # of the head in fp32 at a time, where its weights are of another type: it stays in a CPU's cache
# Positions at a time on a GPU, where fewer have the head read more often than its numbers are multiplied, within a part
# of the card.
GPU_ROWS, CARD_PART = 2048, 16
CPU = torch.device("cpu")


@dataclass(frozen=True)
class LogitsTransform:
    """What some classes do to their logits after the projection: z -> cap·tanh(scale·z / cap), or scale·z without a
    cap.

    Caps: Gemma 2 (arXiv 2408.00118, 2.2), RecurrentGemma; scales: Cohere, Granite, muP heads such as MiniCPM3's.
    """

    scale: float = 1.0
    cap: float | None = None

    def apply_(self, logits: Tensor) -> Tensor:
        """Transforms in place, and returns, logits of any shape; nothing is computed where nothing is to be done."""
        if self.scale != 1:
            logits.mul_(self.scale)
        return logits if self.cap is None else logits.div_(self.cap).tanh_().mul_(self.cap)

    def slope(self, transformed: Tensor) -> Tensor | float:
        """The derivative, from the transformed logits y: scale·(1 − (y / cap)²), a number where it is the same
        everywhere.
        """
        if self.cap is None:
            return self.scale
        return (transformed / self.cap).square_().neg_().add_(1).mul_(self.scale)

    @property
    def buffers(self) -> int:
        """How many more buffers of the logits' size the gradient takes."""
        return 0 if self.cap is None else 1


IDENTITY = LogitsTransform()


@dataclass(frozen=True)
class Head:
    """A model's output projection, sliced to the shared vocabulary."""

    weight: Tensor  # [V, H]
    bias: Tensor | None = None  # [V]
    transform: LogitsTransform = IDENTITY
    # ids that count as one token, for all of which the first stands; fewer than two: nothing does
    end_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Projection:
    """What one pass over the head gives; a field is None unless it was asked for."""

    logprobs: Tensor  # [N, M], of the given ids, under the full softmax
    entropy: Tensor | None = None  # [N], nats
    topk_ids: Tensor | None = None  # [N, K], most probable first
    topk_logprobs: Tensor | None = None  # [N, K]


@torch.no_grad()
def project(
    hidden: Tensor,
    head: Head,
    ids: Tensor,
    *,
    top_k: int = 0,
    entropy: bool = False,
    chunk_rows: int | None = None,
) -> Projection:
    """Log-probs of `ids` under the softmax of the head's logits, without gradient. The chunk size changes memory, never
    the meaning.

    Args:
        hidden: [N, H]; head: of V rows, already sliced to the shared vocabulary.
        ids: [N, M] long, each in [0, V).
        top_k: how many of the most probable ids to return; 0 for none.
        entropy: whether to return the entropy over the whole vocabulary.
        chunk_rows: positions per chunk; None: as rows_per_chunk says.
    """
    if hidden.dim() != 2 or ids.dim() != 2 or hidden.shape[0] != ids.shape[0]:
        raise ValueError(f"expected hidden [N, H] and ids [N, M], got {tuple(hidden.shape)} and {tuple(ids.shape)}")
    chunk_rows = chunk_rows or rows_per_chunk(len(head.weight), 2 if entropy else 1, hidden.device)
    pieces = []
    for start in range(0, max(1, hidden.shape[0]), chunk_rows):
        rows = slice(start, start + chunk_rows)
        logits = logits_of(hidden[rows], head)
        pieces.append(_project_chunk(logits, ids[rows], top_k, entropy))
    logprobs, entropies, topk_ids, topk_logprobs = zip(*pieces, strict=True)
    return Projection(torch.cat(logprobs), _joined(entropies), _joined(topk_ids), _joined(topk_logprobs))


def rows_per_chunk(vocab_size: int, buffers: int = 1, device: torch.device = CPU) -> int:
    """How many positions are worked on at a time, if each needs so many fp32 buffers of the vocabulary's width."""
    row = 4 * vocab_size * buffers
    card = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    return max(1, chunk_bytes(row, card) // row)


def chunk_bytes(row_bytes: int, card_bytes: int | None) -> int:
    """Bytes of a chunk, of so many a position: CHUNK_BYTES, on a GPU with so much memory GPU_ROWS within its part."""
    if card_bytes is None:
        return CHUNK_BYTES
    return max(CHUNK_BYTES, min(GPU_ROWS * row_bytes, card_bytes // CARD_PART))


@functools.cache
def has_wide_products(kind: str, dtype: torch.dtype) -> bool:
    """Whether a kind of device multiplies matrices of this narrow type with float32 sums and a float32 result."""
    try:
        one = torch.ones(1, 1, dtype=dtype, device=kind)
        return torch.mm(one, one, out_dtype=torch.float32).dtype == torch.float32
    except (RuntimeError, TypeError, AssertionError):  # NotImplementedError is a RuntimeError
        return False


def arithmetic_dtype(hidden: Tensor) -> torch.dtype:
    """float32, or float64 if the hidden states are."""
    return torch.promote_types(hidden.dtype, torch.float32)


def logits_of(hidden: Tensor, head: Head, out: Tensor | None = None) -> Tensor:
    """The head's logits in the arithmetic dtype, its end ids merged, [N, V], written to `out` if given."""
    logits = own_logits(hidden, head, out)
    merge_(logits, head.end_ids)
    return logits


def own_logits(hidden: Tensor, head: Head, out: Tensor | None = None) -> Tensor:
    """The model's own logits in the arithmetic dtype: transform(hidden @ weight.T + bias), [N, V], written to `out` if
    given.
    """
    dtype = arithmetic_dtype(hidden)
    out = hidden.new_empty(len(hidden), len(head.weight), dtype=dtype) if out is None else out
    narrow = hidden.dtype == head.weight.dtype != dtype
    if narrow and has_wide_products(hidden.device.type, hidden.dtype):
        torch.mm(hidden, head.weight.T, out_dtype=dtype, out=out)
    else:
        exact = narrow and hidden.dtype == torch.bfloat16 and hidden.device.type == "cpu"
        wide = hidden.to(dtype)
        with bfloat16_products(exact):
            for block, weight in head_blocks(head.weight, dtype):
                torch.mm(wide, weight.T, out=out[:, block])
    return head.transform.apply_(out if head.bias is None else out.add_(head.bias))


@contextmanager
def bfloat16_products(wanted: bool) -> Iterator[None]:
    """Lets a CPU multiply float32 numbers as bfloat16 ones, at up to twice the speed where it has instructions for it.

    It loses nothing where both factors were bfloat16 numbers before: their products are exact, the sums are float32's.
    """
    before = torch.get_float32_matmul_precision()
    if wanted:
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def merge_(logits: Tensor, end_ids: Sequence[int]) -> Tensor | None:
    """Makes the end ids one token, in place: the first gets the probability of them all, the others none.

    A logit of −inf would make NaN of 0·(−inf) in a divergence; the others get a finite one whose exponential is 0.

    Args: logits [N, V]; end_ids, n different ids in [0, V); fewer than two change nothing. Returns: [N, n], what of the
        one token's probability is each id's (what its gradient is spread by); None where nothing changed.
    """
    if len(end_ids) < 2:
        return None
    first, *others = end_ids
    ends = logits[:, list(end_ids)]
    logits[:, first] = ends.logsumexp(-1)
    logits[:, others] = torch.finfo(logits.dtype).min / 2
    return ends.softmax(-1)


def spread_(gradient: Tensor, end_ids: Sequence[int], shares: Tensor | None) -> Tensor:
    """From the gradient with respect to merged logits [N, V] to that with respect to the model's own, in place; shares:
    of `merge_`.
    """
    if shares is not None:
        gradient[:, list(end_ids)] = gradient[:, end_ids[0], None] * shares
    return gradient


def head_blocks(weight: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """The head's rows in `dtype`: itself if it is of that type, else piece by piece, so that no second copy of it
    exists.
    """
    size = len(weight) if weight.dtype == dtype else max(1, BLOCK_BYTES // (weight.shape[1] * dtype.itemsize))
    for start in range(0, len(weight), size):
        rows = slice(start, min(start + size, len(weight)))
        yield rows, weight[rows].to(dtype)


def _joined(pieces: Sequence[Tensor | None]) -> Tensor | None:
    found = [piece for piece in pieces if piece is not None]
    return torch.cat(found) if found else None


def _project_chunk(
    logits: Tensor, ids: Tensor, top_k: int, entropy: bool
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Uses up `logits`."""
    logits.sub_(logits.amax(-1, keepdim=True))
    picked = logits.gather(-1, ids)
    top = logits.topk(top_k, dim=-1) if top_k else None
    entropies = None
    if entropy:
        weights = logits.exp()
        total = weights.sum(-1, keepdim=True)
        # probability 0 times log-probability -inf is 0 here, not NaN
        weighted = weights.mul_(logits.clamp_min_(torch.finfo(logits.dtype).min))
        entropies = (total.log() - weighted.sum(-1, keepdim=True) / total)[:, 0]
    else:
        total = logits.exp_().sum(-1, keepdim=True)
    lse = total.log()
    return (
        picked - lse,
        entropies,
        None if top is None else top.indices,
        None if top is None else top.values - lse,
    )
