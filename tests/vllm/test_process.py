"""vLLM in a process of its own: what it writes, weights that it is handed, two of them at once, and a killed one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.models.loading import load_model
from harness.rollout import Sampling
from harness.rollout.process import ProcessBackend
from harness.rollout.vllm import Answer, Call, VLLMEngine, narrow
from harness.rollout.weights import DiskWeights, InProcessWeights
from harness.scoring import Completion, ScoreRequest
from harness.scoring.vllm import VLLMScorer
from tests.vllm.conftest import LONG_PROMPT, in_process, largest_difference, processes_of_group, requests
from tests.vllm.test_server import options
from tests.vllm.test_weights import other_policy

pytestmark = pytest.mark.vllm

BOUND = 1e-4  # nats
GREEDY, SAMPLING = Sampling(24, temperature=0.0), Sampling(24, stop_ids=(1,))


def opened(source: str, folder: Path) -> ProcessBackend:
    """A ProcessBackend on a stored model."""
    return ProcessBackend(options(source), threads=1, device=None, log=folder / "engine.log", start_limit_s=300)


@pytest.fixture(scope="module")
def backend(tied: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessBackend]:
    with opened(tied, tmp_path_factory.mktemp("process")) as backend:
        yield backend


CALLS = [
    *(
        Call(LONG_PROMPT[i:], {"max_tokens": 30, "temperature": 1.0, "seed": i, "logprobs": 2, "ignore_eos": True})
        for i in range(100)  # more than it decodes side by side
    ),
    *(Call(LONG_PROMPT[:n], {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 8}) for n in range(2, 40)),
]


def answers(backend: Any, calls: list[Call]) -> dict[int, Answer]:
    found: dict[int, Answer] = {}
    backend.run(calls, lambda index, answer: found.update({index: answer}))
    return found


def test_it_answers_what_an_engine_in_this_process_answers(backend: ProcessBackend, tied: str) -> None:
    with in_process(tied) as other:
        expected = answers(other, CALLS)
    found = answers(backend, CALLS)
    assert sorted(found) == sorted(expected) == list(range(len(CALLS)))
    for index, answer in found.items():
        wanted = expected[index]
        assert (answer.token_ids, answer.stopped) == (wanted.token_ids, wanted.stopped)
        for one, two in ((answer.written, wanted.written), (answer.prompt, wanted.prompt)):
            assert (one is None) == (two is None)
            if one is not None and two is not None:
                assert np.abs(one.chosen - two.chosen).max(initial=0) <= BOUND
                assert np.abs(one.topk - two.topk).max(initial=0) <= BOUND
                assert one.topk_ids.shape == two.topk_ids.shape and one.chosen.dtype == two.chosen.dtype


def test_weights_that_are_handed_over_are_those_of_the_disk(backend: ProcessBackend, tied: str, tmp_path: Path) -> None:
    old, new = load_model(tied), other_policy(tied)
    engine = VLLMEngine(backend)
    before = engine.generate(requests(LONG_PROMPT), GREEDY)
    assert largest_difference(before, old) <= BOUND
    ways = (InProcessWeights(engine, new), DiskWeights(engine, new, tmp_path / "pushed"))
    back = InProcessWeights(engine, old)
    written = []
    for version, way in enumerate(ways):
        way.push(2 * version)
        written.append(engine.generate(requests(LONG_PROMPT), GREEDY))
        assert {rollout.policy_version for rollout in written[-1]} == {2 * version}
        assert largest_difference(written[-1], new) <= BOUND  # the tied head and the prefix cache, too
        back.push(2 * version + 1)
        again = engine.generate(requests(LONG_PROMPT), GREEDY)
        assert [r.completion_ids for r in again] == [r.completion_ids for r in before]
    handed, read = ([r.completion_ids for r in way] for way in written)
    assert handed == read != [r.completion_ids for r in before]
    backend.after_restart.clear()


def test_a_killed_engine_loses_nothing_and_comes_back_with_the_current_weights(
    backend: ProcessBackend, tied: str, capfd: pytest.CaptureFixture[str]
) -> None:
    new = other_policy(tied)
    engine = VLLMEngine(backend)
    narrow(backend, 64)
    InProcessWeights(engine, new).push(7)
    asked = [request for first in range(8) for request in requests((5 + first, *LONG_PROMPT), count=12)]
    whole = engine.generate(asked, SAMPLING)
    capfd.readouterr()
    first, finished = backend.pid, []
    assert first is not None

    def kill(index: int, _: object) -> None:
        finished.append(index)
        if len(finished) == 3:
            os.killpg(first, signal.SIGKILL)

    rollouts = engine.generate(asked, SAMPLING, finished=kill)
    assert sorted(finished) == list(range(len(asked)))  # each of them once
    assert [r.completion_ids for r in rollouts] == [r.completion_ids for r in whole]
    assert max(np.abs(np.subtract(a.logprobs, b.logprobs)).max() for a, b in zip(rollouts, whole, strict=True)) <= BOUND
    assert largest_difference(rollouts, new) <= BOUND
    assert backend.pid != first and processes_of_group(first) == []
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and said.endswith("starting it once more\n") and "killed by SIGKILL" in said


def test_two_engines_work_at_once(tied: str, untied: str, tmp_path: Path) -> None:
    """What two in one process cannot do. (Nor can they sleep there; on a CPU vLLM refuses sleep mode.)"""
    student, teacher = opened(tied, tmp_path), opened(untied, tmp_path)
    with student, teacher:
        engine, scorer = VLLMEngine(student), VLLMScorer(teacher, 64, 128)
        asked = requests(LONG_PROMPT, count=64)
        completions = [Completion(LONG_PROMPT[:n], LONG_PROMPT[n:]) for n in range(20, 84)]
        alone = engine.generate(asked, SAMPLING)
        scored_alone = scorer.score(completions, ScoreRequest(top_k=4)).signal
        scored: list[Any] = []
        thread = threading.Thread(target=lambda: scored.append(scorer.score(completions, ScoreRequest(top_k=4)).signal))
        thread.start()
        together = engine.generate(asked, SAMPLING)
        thread.join()
    assert [r.completion_ids for r in together] == [r.completion_ids for r in alone]
    assert (scored[0].logprobs - scored_alone.logprobs).abs().max() <= BOUND
    assert largest_difference(together, load_model(tied)) <= BOUND
