"""Scoring with a transformers model in process: padded forwards under no gradient, the head applied in chunks.

Shape legend: B sequences, T completion positions, N valid tokens, H hidden width, K top-k, R rows asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.models.backbone import evaluating, hidden_states
from harness.models.head import head_of
from harness.numerics.logprobs import CARD_PART, Head, Projection, project
from harness.numerics.loss import TeacherRows
from harness.numerics.padding import padded
from harness.scoring import Completion, ScoreRequest, pad_completions
from harness.types import TokenSignal

TOKENS_PER_FORWARD = 2**14  # padded tokens in one forward pass
# Hidden states kept for a later `support`, on a GPU a part of the card; beyond it, the sequences concerned are run
# again.
KEPT_HIDDEN_BYTES = 2**28


class HFScorer:
    """Scores with the live weights of a transformers model."""

    def __init__(self, model: PreTrainedModel, vocab_size: int, end_ids: tuple[int, ...] = ()) -> None:
        self.model = model
        self.vocab_size = vocab_size
        self.end_ids = end_ids  # that count as one token (Head)

    @torch.no_grad()
    def score(self, completions: Sequence[Completion], request: ScoreRequest) -> HFScored:
        """See Scorer."""
        mask, labels = pad_completions(completions)
        dtype = torch.promote_types(self.model.dtype, torch.float32)
        scored = HFScored(self, completions, TokenSignal(torch.zeros(mask.shape, dtype=dtype)), keeps=self._keeps(mask))
        logprobs = torch.zeros(mask.shape, dtype=dtype)
        entropy = torch.zeros(mask.shape, dtype=dtype) if request.entropy else None
        stops = torch.tensor(request.stop_ids, dtype=torch.long)
        stop_logprobs = torch.zeros(mask.shape, dtype=dtype) if len(stops) else None
        width = request.top_k if request.at_ids is None else request.at_ids.shape[-1]
        topk_ids = torch.zeros(*mask.shape, width, dtype=torch.long) if width else None
        topk_logprobs = torch.zeros(*mask.shape, width, dtype=dtype) if width else None
        for members in self._forward_groups(completions):
            hidden = self._hidden([completions[i] for i in members])
            where = torch.zeros_like(mask)
            where[members] = mask[members]
            ids = labels[where][:, None]
            if request.at_ids is not None:
                ids = torch.cat([ids, request.at_ids[where]], dim=1)
            count = ids.shape[1]
            ids = torch.cat([ids, stops.expand(len(ids), -1)], dim=1)
            own_topk = request.top_k if request.at_ids is None else 0
            found = self._project(hidden, ids, own_topk, request.entropy)
            logprobs[where] = found.logprobs[:, 0].cpu()
            if stop_logprobs is not None:
                stop_logprobs[where] = found.logprobs[:, count:].logsumexp(-1).cpu()
            if entropy is not None and found.entropy is not None:
                entropy[where] = found.entropy.cpu()
            if topk_ids is not None and topk_logprobs is not None:
                at_ids = ids[:, 1:count] if found.topk_ids is None else found.topk_ids
                values = found.logprobs[:, 1:count] if found.topk_logprobs is None else found.topk_logprobs
                topk_ids[where], topk_logprobs[where] = at_ids.cpu(), values.cpu()
            if scored.keeps:
                scored.kept.append((members, hidden))
        scored.signal = TokenSignal(logprobs, topk_ids, topk_logprobs, entropy, stop_logprobs=stop_logprobs)
        return scored

    def _keeps(self, mask: Tensor) -> bool:
        width = self.model.config.get_text_config().hidden_size
        return int(mask.sum()) * width * self.model.dtype.itemsize <= kept_bytes(self.model.device)

    def _forward_groups(self, completions: Sequence[Completion]) -> Iterator[list[int]]:
        """Ascending indices of sequences that share a forward pass, similar lengths together."""
        lengths = [len(c.prompt_ids) + len(c.completion_ids) for c in completions]
        group: list[int] = []
        for i in sorted(range(len(lengths)), key=lengths.__getitem__):
            if group and lengths[i] * (len(group) + 1) > TOKENS_PER_FORWARD:
                yield sorted(group)
                group = []
            group.append(i)
        if group:
            yield sorted(group)

    def _hidden(self, completions: Sequence[Completion]) -> Tensor:
        """[N, H]: the states that predict each completion token, sequence after sequence."""
        sequences = [[*c.prompt_ids, *c.completion_ids] for c in completions]
        ids = padded(sequences).to(self.model.device)
        with evaluating(self.model):
            states = hidden_states(self.model, ids, use_cache=False).last_hidden_state
        rows = [
            states[i, len(c.prompt_ids) - 1 : len(s) - 1]
            for i, (c, s) in enumerate(zip(completions, sequences, strict=True))
        ]
        return torch.cat(rows)

    def _project(self, hidden: Tensor, ids: Tensor, top_k: int, entropy: bool = False) -> Projection:
        ids = ids.to(hidden.device)
        return project(hidden, self._head(), ids, top_k=top_k, entropy=entropy)

    def _head(self) -> Head:
        return head_of(self.model, self.vocab_size, self.end_ids)


def kept_bytes(device: torch.device) -> int:
    """How many bytes of hidden states are kept on a device."""
    if device.type != "cuda":
        return KEPT_HIDDEN_BYTES
    return max(KEPT_HIDDEN_BYTES, torch.cuda.get_device_properties(device).total_memory // CARD_PART)


@dataclass
class HFScored:
    """The answer of an HFScorer; remembers hidden states within a budget, so that `support` costs
    one small projection.
    """

    scorer: HFScorer
    completions: Sequence[Completion]
    signal: TokenSignal
    keeps: bool
    kept: list[tuple[list[int], Tensor]] = field(default_factory=list)  # sequences, and their states [N, H]

    @torch.no_grad()
    def support(self, mask: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
        """See Scored."""
        members = mask.any(1).nonzero()[:, 0].tolist()
        if not members:
            return torch.zeros(0, top_k, dtype=torch.long), torch.zeros(0, top_k)
        rows = self._rows(mask, members)
        found = self.scorer._project(rows, rows.new_zeros(len(rows), 1, dtype=torch.long), top_k)
        assert found.topk_ids is not None and found.topk_logprobs is not None
        return found.topk_ids.cpu(), found.topk_logprobs.cpu()

    @torch.no_grad()
    def whole(self, mask: Tensor) -> TeacherRows:
        """See WholeScored."""
        head = self.scorer._head()
        members = mask.any(1).nonzero()[:, 0].tolist()
        hidden = self._rows(mask, members) if members else head.weight.new_zeros(0, head.weight.shape[1])
        return TeacherRows(hidden, head)

    def _rows(self, mask: Tensor, members: list[int]) -> Tensor:
        """[R, H], row-major over the mask, whose sequences with any position are `members`."""
        found: dict[int, Tensor] = {}
        for group, hidden in self._groups(members):
            own = [mask[i, : len(self.completions[i].completion_ids)] for i in group]
            picked = hidden[torch.cat(own).nonzero()[:, 0].to(hidden.device)]
            found |= zip(group, picked.split([int(positions.sum()) for positions in own]), strict=True)
        return torch.cat([found[i] for i in members])

    def _groups(self, members: list[int]) -> Iterator[tuple[list[int], Tensor]]:
        """Sequences and their hidden states one after the other, [N, H]: as they are kept, or made again, as many in a
        forward pass as when they were scored.
        """
        if self.keeps:
            yield from self.kept
            return
        wanted = [self.completions[i] for i in members]
        for group in self.scorer._forward_groups(wanted):
            yield [members[k] for k in group], self.scorer._hidden([wanted[k] for k in group])
