"""Weights pushed into a running engine are in force, wholly: both silent traps, the oracle, ten updates."""

from __future__ import annotations

import pytest

from harness.models.loading import load_model
from harness.rollout import Sampling
from harness.rollout.vllm import InProcessBackend, VLLMEngine
from harness.rollout.weights import DiskWeights, InProcessWeights, TransferWeights
from tests.conftest import random_model
from tests.vllm.conftest import LONG_PROMPT, in_process, largest_difference, requests, step_of_training, stored

pytestmark = pytest.mark.vllm

BOUND = 1e-4  # nats
VISIBLE = 0.1  # nats; two policies of these tests differ by more
SAMPLING = Sampling(24)


def other_policy(source: str):
    """The stored model after some training."""
    model = load_model(source)
    for seed in range(5):
        step_of_training(model, seed)
    return model


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_a_push_is_in_force_and_nothing_else_is(kind, request):
    source = request.getfixturevalue(kind)
    old, new = load_model(source), other_policy(source)
    with in_process(source) as backend:
        engine = VLLMEngine(backend)
        assert largest_difference(engine.generate(requests(LONG_PROMPT), SAMPLING), old) <= BOUND
        assert (
            largest_difference(engine.generate(requests(LONG_PROMPT), SAMPLING), new) > VISIBLE
        )  # training alone moves nothing
        InProcessWeights(engine, new).push(1)
        rollouts = engine.generate(requests(LONG_PROMPT), SAMPLING)
    assert {r.policy_version for r in rollouts} == {1}
    assert largest_difference(rollouts, new) <= BOUND
    assert largest_difference(rollouts, old) > VISIBLE


def test_without_the_repair_a_tied_head_keeps_the_old_weights(tied, monkeypatch):
    new = other_policy(tied)
    monkeypatch.setattr("harness.rollout.worker.retie_head", lambda model: None)
    with in_process(tied) as backend:
        engine = VLLMEngine(backend)
        weights = InProcessWeights(engine, new)
        weights.push(1)
        assert largest_difference(engine.generate(requests(LONG_PROMPT), SAMPLING), new) > VISIBLE
        monkeypatch.undo()
        weights.push(2)
        assert largest_difference(engine.generate(requests(LONG_PROMPT), SAMPLING), new) <= BOUND


def test_without_a_reset_the_prefix_cache_is_of_the_old_policy(tied, monkeypatch):
    new = other_policy(tied)
    with in_process(tied) as backend:
        engine = VLLMEngine(backend)
        weights = InProcessWeights(engine, new)
        engine.generate(requests(LONG_PROMPT), SAMPLING)  # fills the cache
        monkeypatch.setattr(InProcessBackend, "reset_prefix_cache", lambda self: None)
        weights.push(1)
        assert largest_difference(engine.generate(requests(LONG_PROMPT), SAMPLING), new) > VISIBLE
        monkeypatch.undo()
        weights.push(2)
        assert largest_difference(engine.generate(requests(LONG_PROMPT), SAMPLING), new) <= BOUND


def test_every_way_writes_what_the_disk_writes(tied, tmp_path):
    """Greedy, token for token, on several prompts; `transfer` by vLLM's own interface with a backend that works on a
    CPU.
    """
    from tests.vllm.local_transfer import LocalInitInfo, client_of  # imports vLLM

    new, greedy = other_policy(tied), Sampling(24, temperature=0.0)
    prompts = [request for first in range(8) for request in requests((5 + first, *LONG_PROMPT), count=1)]
    written = {}
    with in_process(tied, transfer_backend="local") as backend:
        engine = VLLMEngine(backend)
        before = [r.completion_ids for r in engine.generate(prompts, greedy)]
        ways = {
            "disk": DiskWeights(engine, new, tmp_path / "pushed"),
            "in_process": InProcessWeights(engine, new),
            "transfer": TransferWeights(engine, new, client_of(backend.llm), lambda: LocalInitInfo(rank=0)),
        }
        back = InProcessWeights(engine, load_model(tied))
        for version, (name, way) in enumerate(ways.items()):
            way.push(2 * version)
            written[name] = [r.completion_ids for r in engine.generate(prompts, greedy)]
            back.push(2 * version + 1)
            assert [r.completion_ids for r in engine.generate(prompts, greedy)] == before
        ways["disk"].clear()
    assert written["disk"] != before
    assert written["in_process"] == written["disk"]
    assert written["transfer"] == written["disk"]
    assert not (tmp_path / "pushed").exists()


def test_ten_pushes_later_the_engine_is_still_the_trainer(tied):
    model = load_model(tied)
    with in_process(tied) as backend:
        engine = VLLMEngine(backend)
        weights = InProcessWeights(engine, model)
        for version in range(10):
            step_of_training(model, version)
            weights.push(version)
            assert largest_difference(engine.generate(requests(LONG_PROMPT), SAMPLING), model) <= BOUND


def test_a_version_is_pushed_once(tied, monkeypatch):
    with in_process(tied) as backend:
        weights = InProcessWeights(VLLMEngine(backend), load_model(tied))
        sent = []
        monkeypatch.setattr(InProcessWeights, "send", lambda self: sent.append(1))
        for version in (0, 0, 1, 1, 0):
            weights.push(version)
    assert len(sent) == 3


def test_bfloat16_weights(tmp_path):
    source = stored(tmp_path, random_model(4))
    model = load_model(source, dtype="bfloat16")
    for seed in range(5):
        step_of_training(model, seed)
    with in_process(source, dtype="bfloat16") as backend:
        engine = VLLMEngine(backend)
        stale = largest_difference(engine.generate(requests(), SAMPLING), model)
        InProcessWeights(engine, model).push(1)
        assert largest_difference(engine.generate(requests(), SAMPLING), model) < 0.5 < stale
