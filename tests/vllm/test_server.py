"""`vllm serve` on loopback, started by the harness: rollouts, scores and a push through it, and nothing left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from harness.files import ROOT
from harness.models.loading import load_model
from harness.rollout import Sampling
from harness.rollout.server import ServerBackend, ServerProcess
from harness.rollout.vllm import Answer, Call, EngineOptions, VLLMEngine, narrow
from harness.rollout.weights import DiskWeights
from harness.scoring import Completion, ScoreRequest
from harness.scoring.hf import HFScorer
from harness.scoring.vllm import VLLMScorer
from tests.vllm.conftest import (
    CONTEXT,
    LONG_PROMPT,
    in_process,
    largest_difference,
    processes_of_group,
    processes_with,
    requests,
    step_of_training,
)

pytestmark = pytest.mark.vllm

BOUND = 1e-4  # nats


def options(source: str) -> EngineOptions:
    return EngineOptions(source, None, "float32", 2**26, 64, 128, True, True, CONTEXT)


def test_rollouts_scores_and_a_push_through_a_server(tied, tmp_path):
    """One server for all of it: its start is most of the time."""
    old, new = load_model(tied), load_model(tied)
    for seed in range(5):
        step_of_training(new, seed)
    greedy = Sampling(24, temperature=0.0)
    process = ServerProcess(options(tied), 1, tmp_path / "server.log")
    with ServerBackend(process, None, start_limit_s=300, time_limit_s=60) as backend:
        narrow(backend, 64)
        engine = VLLMEngine(backend)
        finished: list[int] = []
        rollouts = engine.generate(
            requests(LONG_PROMPT), Sampling(24, stop_ids=(1,)), finished=lambda i, _: finished.append(i)
        )
        assert sorted(finished) == list(range(8))
        assert largest_difference(rollouts, old) <= BOUND
        _check_scores(backend, old)
        forms = _check_forms(backend)

        before = engine.generate(requests(LONG_PROMPT, count=2), greedy)
        weights = DiskWeights(engine, new, tmp_path / "pushed")
        weights.push(1)
        after = engine.generate(requests(LONG_PROMPT, count=2), greedy)
        assert {r.policy_version for r in after} == {1}
        assert after[0].completion_ids != before[0].completion_ids
        assert largest_difference(after, new) <= BOUND  # the tied head and the prefix cache are of the new policy

        with ServerBackend(None, backend.url, start_limit_s=5, time_limit_s=60) as other:  # as one that runs already
            assert other.tell("harness_describe")["stop_ids"] == [1]
            again = VLLMEngine(other).generate(requests(LONG_PROMPT, count=2), greedy)
            assert [r.completion_ids for r in again] == [r.completion_ids for r in after]
        group = process._process.pid
        assert len(processes_of_group(group)) >= 2
    _wait(lambda: processes_of_group(group) == [], 10)  # the kernel may take a moment with what was killed
    with in_process(tied) as backend:
        _check_same(_answers(backend), forms)
        engine = VLLMEngine(backend)
        DiskWeights(engine, new, tmp_path / "pushed").push(1)
        oracle = engine.generate(requests(LONG_PROMPT, count=2), greedy)
    assert [r.completion_ids for r in oracle] == [r.completion_ids for r in after]


SCORED = {"max_tokens": 1, "temperature": 0.0, "ignore_eos": True}


def _answers(backend) -> list[Answer]:
    """To a prompt's log-probs without and with the 8 most probable tokens, and to the next token's."""
    calls = [Call(LONG_PROMPT, {**SCORED, **asked}) for asked in ({"prompt_logprobs": 0}, {"prompt_logprobs": 8})]
    calls.append(Call(LONG_PROMPT[:30], {**SCORED, "logprobs": 8}))
    found: dict[int, Answer] = {}
    backend.run(calls, found.__setitem__)
    return [found[index] for index in range(len(calls))]


def _check_forms(backend) -> list[Answer]:
    """Arrays are what JSON says."""
    assert backend._packs
    as_arrays = _answers(backend)
    backend._packs = False
    _check_same(as_arrays, _answers(backend))
    backend._packs = True
    return as_arrays


def _check_same(found: list[Answer], expected: list[Answer]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.token_ids, one.stopped) == (other.token_ids, other.stopped)
        for a, b in ((one.written, other.written), (one.prompt, other.prompt)):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                np.testing.assert_array_equal(a.topk_ids, b.topk_ids)
                np.testing.assert_allclose(a.chosen, b.chosen, rtol=0, atol=BOUND)
                np.testing.assert_allclose(a.topk, b.topk, rtol=0, atol=BOUND)


def _check_scores(backend, model) -> None:
    asked = [Completion(LONG_PROMPT[:20], LONG_PROMPT[20:80]), Completion((5,), (6, 7))]
    scorer, exact = VLLMScorer(backend, 64, 128), HFScorer(model, 64)
    found, expected = scorer.score(asked, ScoreRequest(top_k=8)), exact.score(asked, ScoreRequest(top_k=8))
    torch.testing.assert_close(found.signal.logprobs, expected.signal.logprobs, rtol=0, atol=BOUND)
    assert torch.equal(found.signal.topk_ids, expected.signal.topk_ids)
    mask = torch.zeros(2, 60, dtype=torch.bool)
    mask[0, [3, 40]], mask[1, 0] = True, True
    (ids, logprobs), (expected_ids, expected_logprobs) = (
        scorer.score(asked, ScoreRequest()).support(mask, 8),
        expected.support(mask, 8),
    )
    assert torch.equal(ids, expected_ids)
    torch.testing.assert_close(logprobs, expected_logprobs, rtol=0, atol=BOUND)
    entropy = scorer.score(asked, ScoreRequest(entropy=True)).signal.entropy
    torch.testing.assert_close(
        entropy, exact.score(asked, ScoreRequest(entropy=True)).signal.entropy, rtol=0, atol=BOUND
    )


PARENT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs have it ignored
import sys
from pathlib import Path
from harness.rollout.server import ServerProcess
from harness.rollout.vllm import EngineOptions
options = EngineOptions(sys.argv[1], None, "float32", 2**26, 64, 128, True, True, 2048)
process = ServerProcess(options, 1, Path(sys.argv[2]))
process.start(300)
"""


@pytest.mark.parametrize(
    ("end", "processes"),
    [
        (signal.SIGINT, 3),  # the parent, its watchdog, and what is about to become the server
        (signal.SIGTERM, 3),
        (signal.SIGKILL, 5),  # the server has started processes of its own
    ],
)
def test_no_server_outlives_its_parent(tied, tmp_path, end, processes):
    """The parent is ended while the server starts, when its own handling of signals could know least about it."""
    mark = f"{tmp_path}-mark"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, tied, str(tmp_path / "server.log")],
        cwd=ROOT,
        env={**os.environ, "OF_THIS_TEST": mark},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _wait(lambda: len(processes_with(mark)) >= processes, 240)
    parent.send_signal(end)
    assert parent.wait(30) != 0
    _wait(lambda: processes_with(mark) == [], 30)


def _wait(condition, limit_s: float) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.1)
