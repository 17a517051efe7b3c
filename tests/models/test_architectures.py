"""Every class of model that people bring, against plain logits of transformers: log-probs, gradients, greedy texts; or
its one sentence.

`python -m tests.models.test_architectures` tries them all and writes the table of docs/models.md.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from harness.divergences import topk_forward_kl
from harness.errors import UserError
from harness.files import ROOT
from harness.models.head import bind_token_forward
from harness.models.loading import load_model
from harness.models.randomness import check_training_mode
from harness.rollout import RolloutRequest, Sampling
from harness.rollout.hf import HFEngine, way_of
from harness.rollout.own_cache import AGAIN, ATTENTION, EQUAL, RAGGED
from harness.scoring import Completion, ScoreRequest
from harness.scoring.hf import HFScorer
from harness.types import Rollout
from tests.models.architectures import (
    ALWAYS,
    ARCHITECTURES,
    INEXACT_CACHE,
    NO_REFERENCE,
    VOCAB,
    build,
    class_of,
)

TOLERANCE = 1e-4  # nats of a log-prob; relative of the gradient
TABLE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- classes -->\n", "<!-- classes end -->"
SAID = {
    ATTENTION: "works",
    RAGGED: "works, sampled by its own cache",
    EQUAL: "works, sampled by its own cache, prompts of one length at a time",
    AGAIN: "works, sampled without a cache: every token costs a forward pass over the whole text",
}


def requests() -> list[RolloutRequest]:
    """Ragged prompts, some with prefixes, one asked for twice."""
    rng = random.Random(0)
    made = []
    for i, (prompt, prefix) in enumerate([(4, 0), (9, 3), (17, 0), (9, 0), (6, 11)]):
        ids = [tuple(rng.randrange(3, 90) for _ in range(count)) for count in (prompt, prefix)]
        made.append(RolloutRequest(str(i), ids[0], seed=i, prefix_ids=ids[1]))
    return [*made, RolloutRequest("0", made[0].prompt_ids, seed=999, sample_index=1)]


def plain_logprobs(model: Any, rollout: Rollout) -> torch.Tensor:
    """Of the completion, from the logits that the class itself returns for this text alone."""
    ids = torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]])
    logits = model(input_ids=ids, use_cache=False).logits[0].float()
    chosen = torch.tensor(rollout.completion_ids)[:, None]
    return logits.log_softmax(-1)[len(rollout.prompt_ids) - 1 : -1].gather(-1, chosen)[:, 0]


def loss_of(model: Any, rollouts: list[Rollout], weights: torch.Tensor) -> torch.Tensor:
    """The bound forward's, with `weights` [B, T] as advantages."""
    width = max(len(r.prompt_ids) + len(r.completion_ids) for r in rollouts)
    sequences = [[*r.prompt_ids, *r.completion_ids] for r in rollouts]
    nothing = torch.zeros(0, dtype=torch.long)
    tokens = torch.tensor([token for r in rollouts for token in r.completion_ids])
    starts = [i * width + len(r.prompt_ids) - 1 for i, r in enumerate(rollouts)]
    loss, _ = model(
        input_ids=torch.tensor([s + [0] * (width - len(s)) for s in sequences]),
        rows=torch.tensor([s + t for s, r in zip(starts, rollouts, strict=True) for t in range(len(r.completion_ids))]),
        token_ids=tokens,
        policy=torch.cat([row[: len(r.completion_ids)] for row, r in zip(weights, rollouts, strict=True)]),
        imitation=torch.zeros(len(tokens)),
        support_rows=nothing,
        divergence_weights=torch.zeros(0),
        divergence=topk_forward_kl,
        support_ids=nothing.reshape(0, 1),
        teacher_logprobs=torch.zeros(0, 1),
    )
    return loss


def check_logprobs(name: str, model: Any, plain: Any) -> list[Rollout]:
    """Of sampler and scorer; returns the samples."""
    rollouts = HFEngine(model, VOCAB).generate(requests(), Sampling(12, stop_ids=(1,)))
    scored = HFScorer(model, VOCAB).score(
        [Completion(r.prompt_ids, r.completion_ids) for r in rollouts], ScoreRequest()
    )
    for row, rollout in zip(scored.signal.logprobs, rollouts, strict=True):
        truth = plain_logprobs(plain, rollout).detach()
        sampled = torch.tensor(rollout.logprobs)
        torch.testing.assert_close(sampled, truth, rtol=0, atol=INEXACT_CACHE.get(name, TOLERANCE))
        torch.testing.assert_close(row[: len(truth)], truth, rtol=0, atol=TOLERANCE)
    return rollouts


def check_greedy(model: Any, plain: Any) -> None:
    """Against `generate`, text by text."""
    greedy = HFEngine(model, VOCAB).generate(requests(), Sampling(12, temperature=0.0, stop_ids=(1,)))
    for rollout, request in zip(greedy, requests(), strict=True):
        ids = torch.tensor([[*request.prompt_ids, *request.prefix_ids]])
        expected = plain.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=12,
            pad_token_id=0,
            eos_token_id=1,
        )
        assert rollout.completion_ids == tuple(expected[0, len(request.prompt_ids) :].tolist())


def check_gradient(name: str, model: Any, plain: Any, rollouts: list[Rollout]) -> None:
    """In training mode, against autograd through the class's own logits in eval mode."""
    weights = torch.randn(len(rollouts), 64, generator=torch.Generator().manual_seed(3))
    check_training_mode(model, name)
    bind_token_forward(model, VOCAB)
    model.train()
    loss_of(model, rollouts, weights).backward()
    plain.zero_grad()
    terms = [
        (w[: len(r.completion_ids)] * plain_logprobs(plain, r)).sum() for w, r in zip(weights, rollouts, strict=True)
    ]
    (-torch.stack(terms).sum()).backward()
    found = dict(model.named_parameters())
    off, size = 0.0, 0.0
    for key, parameter in plain.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        own = found[key].grad
        off += float((expected if own is None else own - expected).square().sum())
        size += float(expected.square().sum())
    assert size > 0
    assert off <= TOLERANCE**2 * size


def outcome(name: str, folder: Path) -> str:
    """Tries everything; returns what docs/models.md says of the class."""
    build(name, folder)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    try:
        model = load_model(str(folder))
    except UserError as error:
        return "refused: " + str(error).replace(repr(str(folder)), "NAME")
    rollouts = check_logprobs(name, model, plain)
    if name not in NO_REFERENCE:
        check_greedy(model, plain)
    way = way_of(HFEngine(model, VOCAB))
    check_gradient(name, model, plain, rollouts)
    off = f"; log-probs of the sampler up to {INEXACT_CACHE.get(name)} nats off, of the reward not"
    inexact = off if name in INEXACT_CACHE else ""
    return SAID[way] + inexact


def rows(outcomes: dict[str, str]) -> Iterator[str]:
    """A row per class and outcome, those that work first."""
    cells: dict[tuple[bool, str, str], list[str]] = {}
    for name, said in outcomes.items():
        cells.setdefault((said.startswith("refused"), class_of(name), said), []).append(f"`{name}`")
    for (_, kind, said), names in sorted(cells.items()):
        yield f"| `{kind}` | {', '.join(sorted(names))} | {said} |"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ALWAYS else pytest.mark.slow) for n in ARCHITECTURES]
)
def test_class(name: str, tmp_path: Path) -> None:
    """As the table of docs/models.md says."""
    said = outcome(name, tmp_path)
    mine = [row for row in TABLE.read_text(encoding="utf-8").splitlines() if f"`{name}`" in row]
    assert len(mine) == 1
    assert mine[0].startswith(f"| `{class_of(name)}` |")
    assert mine[0].endswith(f"| {said} |")


def test_the_table_has_every_class_and_no_other() -> None:
    text = TABLE.read_text(encoding="utf-8")
    listed = [
        name.strip("` ") for row in text.splitlines() if row.startswith("| `") for name in row.split("|")[2].split(",")
    ]
    assert sorted(listed) == sorted(ARCHITECTURES)


def main() -> None:
    """Writes the table."""
    torch.set_num_threads(1)
    outcomes = {}
    for name in ARCHITECTURES:
        with tempfile.TemporaryDirectory() as folder:
            outcomes[name] = outcome(name, Path(folder))
    before, _, rest = TABLE.read_text(encoding="utf-8").partition(BEGIN)
    table = "".join(f"{row}\n" for row in ("| class | tried as | outcome |", "|---|---|---|", *rows(outcomes)))
    TABLE.write_text(f"{before}{BEGIN}{table}{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
