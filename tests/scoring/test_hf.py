"""The scorer against plain forwards, against its fake, and against the engine that made the rollouts."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch

from harness.models.loading import load_model
from harness.numerics.logprobs import logits_of
from harness.scoring import Completion, ScoreRequest, pad_completions
from harness.scoring import hf as hf_module
from harness.scoring.hf import HFScorer


def completions() -> list[Completion]:
    rng = random.Random(0)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, 60) for _ in range(rng.randrange(low, high)))

    return [Completion(tokens(3, 12), tokens(1, 15)) for _ in range(11)]


@pytest.fixture(scope="module")
def scorer(random_pair) -> HFScorer:
    return HFScorer(load_model(str(random_pair / "teacher")), 64)


def truth_of(scorer: HFScorer, completion: Completion) -> torch.Tensor:
    """[T, V] log-probs of one completion by a plain forward."""
    ids = torch.tensor([completion.prompt_ids + completion.completion_ids])
    logits = scorer.model(ids).logits[0, len(completion.prompt_ids) - 1 : -1]
    return logits.double().log_softmax(-1)


@pytest.mark.parametrize("tokens_per_forward", [2**14, 40, 1])
def test_every_signal_equals_a_plain_forward(scorer: HFScorer, monkeypatch, tokens_per_forward: int) -> None:
    monkeypatch.setattr(hf_module, "TOKENS_PER_FORWARD", tokens_per_forward)
    made = completions()
    signal = scorer.score(made, ScoreRequest(top_k=5, entropy=True)).signal
    mask, _ = pad_completions(made)
    assert not signal.logprobs[~mask].any()
    for i, completion in enumerate(made):
        truth, n = truth_of(scorer, completion), len(completion.completion_ids)
        torch.testing.assert_close(
            signal.logprobs[i, :n].double(), truth[range(n), list(completion.completion_ids)], rtol=0, atol=1e-5
        )
        torch.testing.assert_close(signal.topk_logprobs[i, :n].double(), truth.topk(5).values, rtol=0, atol=1e-5)
        torch.testing.assert_close(truth.gather(-1, signal.topk_ids[i, :n]), truth.topk(5).values, rtol=0, atol=1e-5)
        torch.testing.assert_close(signal.entropy[i, :n].double(), -(truth.exp() * truth).sum(-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("budget", [2**28, 0])
def test_support_afterwards_equals_top_k_beforehand(scorer: HFScorer, monkeypatch, budget: int) -> None:
    """From kept hidden states and from a second pass alike."""
    monkeypatch.setattr(hf_module, "KEPT_HIDDEN_BYTES", budget)
    made = completions()
    mask, _ = pad_completions(made)
    some = mask & (torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)) < 0.3)
    beforehand = scorer.score(made, ScoreRequest(top_k=4)).signal
    scored = scorer.score(made, ScoreRequest())
    assert scored.keeps == bool(budget)
    ids, logprobs = scored.support(some, 4)
    assert torch.equal(ids, beforehand.topk_ids[some])
    torch.testing.assert_close(logprobs, beforehand.topk_logprobs[some], rtol=0, atol=1e-5)
    empty_ids, _ = scored.support(torch.zeros_like(mask), 4)
    assert empty_ids.shape == (0, 4)


@pytest.mark.parametrize("asked", [ScoreRequest(), ScoreRequest(top_k=5, entropy=True)])
def test_the_mass_on_stopping(scorer: HFScorer, asked: ScoreRequest) -> None:
    """log(p(1) + p(9)) at every position, whether the two count as one or not; nothing else of the answer changes by
    it.
    """
    made = completions()
    mask, _ = pad_completions(made)
    one_end = HFScorer(scorer.model, 64, end_ids=(9, 1))
    plain = scorer.score(made, asked).signal
    stops = dataclasses.replace(asked, stop_ids=(9, 1))
    found, merged = scorer.score(made, stops).signal, one_end.score(made, stops).signal
    assert plain.stop_logprobs is None
    for name, value in vars(plain).items():
        assert value is None or torch.equal(value, vars(found)[name]), name
    for i, completion in enumerate(made):
        truth = truth_of(scorer, completion)[:, [1, 9]].logsumexp(-1)
        for signal in (found, merged):
            torch.testing.assert_close(signal.stop_logprobs[i, : len(truth)].double(), truth, rtol=0, atol=1e-5)
    assert not found.stop_logprobs[~mask].any()


@torch.no_grad()
def test_end_tokens_that_count_as_one(scorer: HFScorer) -> None:
    """Token log-prob, top k, entropy, later support and whole rows: all of the distribution of events."""
    made = [Completion(c.prompt_ids, (*c.completion_ids, 9)) for c in completions()]
    mask, _ = pad_completions(made)
    scored = HFScorer(scorer.model, 64, end_ids=(9, 1)).score(made, ScoreRequest(top_k=4, entropy=True))
    signal, rows = scored.signal, scored.whole(mask)
    whole = logits_of(rows.hidden, rows.head).double().log_softmax(-1)
    truths = []
    for i, completion in enumerate(made):
        truth, n = truth_of(scorer, completion).exp(), len(completion.completion_ids)
        truth[:, 9] += truth[:, 1]
        truth[:, 1] = 0
        expected = truth[range(n), list(completion.completion_ids)].log()
        torch.testing.assert_close(signal.logprobs[i, :n].double(), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(signal.topk_logprobs[i, :n].double(), truth.topk(4).values.log(), rtol=0, atol=1e-5)
        torch.testing.assert_close(signal.entropy[i, :n].double(), torch.special.entr(truth).sum(-1), rtol=0, atol=1e-5)
        truths.append(truth)
    torch.testing.assert_close(whole.exp(), torch.cat(truths), rtol=0, atol=1e-5)
    ids, logprobs = scored.support(mask, 4)
    assert torch.equal(ids, signal.topk_ids[mask]) and torch.equal(logprobs, signal.topk_logprobs[mask])


def test_log_probs_at_given_ids(scorer: HFScorer) -> None:
    made = completions()
    mask, _ = pad_completions(made)
    ids = torch.randint(64, (*mask.shape, 3), generator=torch.Generator().manual_seed(1))
    signal = scorer.score(made, ScoreRequest(at_ids=ids)).signal
    for i, completion in enumerate(made):
        n = len(completion.completion_ids)
        truth = truth_of(scorer, completion).gather(-1, ids[i, :n])
        torch.testing.assert_close(signal.topk_logprobs[i, :n].double(), truth, rtol=0, atol=1e-5)
        assert torch.equal(signal.topk_ids[i, :n], ids[i, :n])


def test_a_second_pass_is_batched_as_the_first(scorer: HFScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden states that were not kept are made again in as few forward passes as they were made in."""
    monkeypatch.setattr(hf_module, "KEPT_HIDDEN_BYTES", 0)
    passes: list[int] = []
    original = HFScorer._hidden
    monkeypatch.setattr(HFScorer, "_hidden", lambda self, some: passes.append(len(some)) or original(self, some))
    made = completions()
    scored = scorer.score(made, ScoreRequest())
    first = list(passes)
    scored.support(pad_completions(made)[0], 4)
    assert len(made) > 1 and first == [len(made)] and passes == first * 2
