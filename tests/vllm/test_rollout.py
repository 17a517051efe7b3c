"""Rollouts by vLLM in process, against transformers on the same weights."""

from __future__ import annotations

import pytest
import torch

from harness.errors import UserError
from harness.models.loading import load_model
from harness.rollout import RolloutRequest, Sampling
from harness.rollout.vllm import NOT_PUSHED, VLLMEngine, narrow
from tests.conftest import random_model
from tests.vllm.conftest import CONTEXT, SOME_PROMPT, in_process, largest_difference, requests, stored

pytestmark = pytest.mark.vllm

BOUND = 1e-4  # nats, float32 against float32


@pytest.fixture(scope="module")
def engine(tied):
    with in_process(tied) as backend:
        yield VLLMEngine(backend)


def test_logprobs_are_the_models_own(engine, tied):
    rollouts = engine.generate(requests(count=32), Sampling(40, stop_ids=(1,)))
    assert largest_difference(rollouts, load_model(tied)) <= BOUND
    assert {r.policy_version for r in rollouts} == {NOT_PUSHED}


def test_logprobs_are_raw_whatever_the_sampling(engine, tied):
    """Temperature, nucleus and top-k decide what is drawn; the log-probs stay those of the model itself."""
    rollouts = engine.generate(requests(), Sampling(20, temperature=0.5, top_p=0.8, top_k=5))
    assert largest_difference(rollouts, load_model(tied)) <= BOUND


def test_a_sample_is_a_function_of_its_seed(engine):
    sampling = Sampling(24, stop_ids=(1,))
    together = engine.generate(requests(count=16), sampling)
    assert len({r.completion_ids for r in together}) == 16
    assert [r.completion_ids for r in engine.generate(requests(count=16), sampling)] == [
        r.completion_ids for r in together
    ]
    (alone,) = engine.generate(requests(count=16)[5:6], sampling)
    assert alone.completion_ids == together[5].completion_ids and alone.sample_index == 5


def test_the_first_token_is_drawn_from_the_models_distribution(engine, tied):
    """4,000 draws: the total variation of an empirical distribution over 64 tokens is below sqrt(64 / 4000) / 2 in the
    mean.
    """
    draws = 4000
    drawn = engine.generate(requests(count=draws), Sampling(1))
    counts = torch.bincount(torch.tensor([r.completion_ids[0] for r in drawn]), minlength=64)
    logits = load_model(tied)(torch.tensor([SOME_PROMPT])).logits[0, -1]
    assert 0.5 * (counts / draws - logits.softmax(-1)).abs().sum() < 0.5 * (64 / draws) ** 0.5


def test_greedy_is_what_transformers_writes(engine, tied):
    (rollout,) = engine.generate(requests(count=1), Sampling(30, temperature=0.0))
    ids = list(SOME_PROMPT)
    model = load_model(tied)
    with torch.no_grad():
        for _ in range(30):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert list(rollout.completion_ids) == ids[len(SOME_PROMPT) :]


def test_a_prefix_is_spliced_in(engine, tied):
    prefix = (9, 8, 7)
    rollouts = engine.generate(requests(prefix=prefix), Sampling(12))
    for rollout in rollouts:
        assert rollout.completion_ids[:3] == prefix and rollout.prefix_len == 3
        assert len(rollout.completion_ids) == 15 == len(rollout.logprobs)
        assert rollout.logprobs[:3] == (0.0, 0.0, 0.0)
    assert largest_difference(rollouts, load_model(tied)) <= BOUND


def test_stop_reasons(engine):
    stops = tuple(range(5, 64, 2))  # half of the tokens
    rollouts = engine.generate(requests(count=16), Sampling(3, stop_ids=stops))
    assert {r.stop_reason for r in rollouts} == {"stop", "length"}
    for rollout in rollouts:
        *before, last = rollout.completion_ids
        assert not set(before) & set(stops)
        assert (rollout.stop_reason == "stop") == (last in stops)
        assert rollout.stop_reason == "stop" or len(rollout.completion_ids) == 3
    without = engine.generate(requests(), Sampling(30))  # no stop ids: the model's own end token does not stop
    assert {len(r.completion_ids) for r in without} == {30}


def test_the_context_bounds_a_completion(engine):
    (rollout,) = engine.generate([RolloutRequest("p", tuple(5 for _ in range(CONTEXT - 3)), 0)], Sampling(10))
    assert len(rollout.completion_ids) == 3 and rollout.stop_reason == "length"
    with pytest.raises(UserError, match="'long' has no room"):
        engine.generate([RolloutRequest("long", tuple(5 for _ in range(CONTEXT)), 0)], Sampling(10))


def test_rows_are_handed_on_as_they_finish(engine):
    lengths, tokens = [], []
    asked = requests(count=12)
    rollouts = engine.generate(
        asked, Sampling(200, stop_ids=(1,)), tokens.append, lambda i, r: lengths.append((i, len(r.completion_ids)))
    )
    assert sorted(lengths) == [(i, len(r.completion_ids)) for i, r in enumerate(rollouts)]
    assert sum(tokens) == sum(len(r.completion_ids) for r in rollouts)
    assert [length for _, length in lengths] == sorted(
        length for _, length in lengths
    )  # the shortest first, not in a block at the end


def test_an_interruption_leaves_the_engine_usable(engine):
    def interrupt(index, rollout):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate(requests(count=12), Sampling(50), finished=interrupt)
    assert len(engine.generate(requests(count=2), Sampling(4))) == 2


def test_the_softmax_is_over_the_shared_vocabulary(tmp_path):
    """A head that is padded to 80 rows, of which the pair shares 64: the rest can neither be drawn nor take
    probability.
    """
    source = stored(tmp_path, random_model(3, vocab=80))
    model = load_model(source)
    with in_process(source) as backend:
        narrow(backend, 64)
        rollouts = VLLMEngine(backend).generate(requests(count=32), Sampling(40))
    assert max(max(r.completion_ids) for r in rollouts) < 64
    assert largest_difference(rollouts, model, 64) <= BOUND
    assert largest_difference(rollouts, model, 80) > 0.01  # the two softmaxes are not the same


def test_bfloat16_is_within_its_own_rounding(tied):
    with in_process(tied, dtype="bfloat16") as backend:
        rollouts = VLLMEngine(backend).generate(requests(count=16), Sampling(40))
    assert 1e-4 < largest_difference(rollouts, load_model(tied, dtype="bfloat16")) < 0.5
