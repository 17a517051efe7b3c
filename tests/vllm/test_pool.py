"""Two `vllm serve` in a pool, one of which is killed while it writes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from harness.models.loading import load_model
from harness.rollout import Sampling
from harness.rollout.pool import PoolBackend
from harness.rollout.server import ServerBackend, ServerProcess
from harness.rollout.vllm import VLLMEngine, narrow
from harness.rollout.weights import DiskWeights
from tests.vllm.conftest import LONG_PROMPT, largest_difference, processes_of_group, requests
from tests.vllm.test_server import options
from tests.vllm.test_weights import other_policy

pytestmark = pytest.mark.vllm

BOUND = 1e-4  # nats
SAMPLING = Sampling(40, stop_ids=(1,))
LIMITS = {"start_limit_s": 300, "time_limit_s": 120}


def test_a_killed_server_of_two_loses_nothing(tied: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    new = other_policy(tied)
    asked = [request for first in range(8) for request in requests((5 + first, *LONG_PROMPT), count=16)]
    servers = [ServerProcess(options(tied), 1, tmp_path / f"server{number}.log") for number in range(2)]
    with PoolBackend([ServerBackend(server, None, **LIMITS) for server in servers]) as pool:
        narrow(pool, 64)
        engine = VLLMEngine(pool)
        weights = DiskWeights(engine, new, tmp_path / "pushed")
        weights.push(3)  # one file, which both read
        urls = [server.url for server in servers]
        with (
            PoolBackend([ServerBackend(None, url, **LIMITS) for url in urls], owner=False) as guest,
            ServerBackend(None, urls[1], **LIMITS) as one,
        ):
            expected = VLLMEngine(one).generate(asked, SAMPLING)
            assert largest_difference(expected, new) <= BOUND
            group = servers[0]._process.pid
            finished: list[int] = []
            capfd.readouterr()

            def kill(index: int, _: object) -> None:
                finished.append(index)
                if len(finished) == 3:
                    os.killpg(group, signal.SIGKILL)

            rollouts = engine.generate(asked, SAMPLING, finished=kill)
            assert sorted(finished) == list(range(len(asked)))  # each of them once
            same(rollouts, expected)
            said = capfd.readouterr().err
            assert said.count("\n") == 1 and said.endswith("starting it once more\n")
            assert processes_of_group(group) == [] and pool.living == (True, True)
            assert [server.url for server in servers] == urls

            # another process that uses the servers, which has not heard of the new one: it must not ask it
            same(VLLMEngine(guest).generate(asked, SAMPLING), expected)
            assert guest.living == (False, True)
            guest.meet(pool.living)
            same(VLLMEngine(guest).generate(asked, SAMPLING), expected)
            assert guest.living == (True, True)
        with ServerBackend(None, urls[0], **LIMITS) as fresh:  # it has the current weights, not those of its source
            same(VLLMEngine(fresh).generate(asked[:20], SAMPLING), expected[:20])
        groups = [server._process.pid for server in servers]
    assert [processes_of_group(group) for group in groups] == [[], []]
    assert largest_difference(rollouts, load_model(tied)) > 0.1  # the two policies differ visibly


def same(found: list, expected: list) -> None:
    """Tokens, and log-probs within rounding."""
    assert [r.completion_ids for r in found] == [r.completion_ids for r in expected]
    assert max(np.abs(np.subtract(a.logprobs, b.logprobs)).max() for a, b in zip(found, expected, strict=True)) <= BOUND
