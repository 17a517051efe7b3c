"""Log-probs, the sampler and both engines on real weights, against plain transformers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from harness.models.loading import load_model, load_tokenizer, stop_ids_of
from harness.models.template import render
from harness.results.record import load_record
from harness.rollout import RolloutRequest, Sampling
from harness.rollout.hf import HFEngine
from harness.scoring import Completion, ScoreRequest
from harness.scoring.hf import HFScorer
from harness.training.job import run_job
from harness.training.self_check import MISMATCH_LIMIT
from harness.types import Rollout

pytestmark = pytest.mark.real

QUESTIONS = (
    "What is 17 plus 25?",
    "Name three colours.",
    "A train goes 60 km in an hour. How far does it go in 3 hours and a half, if it stops for half an hour on the way?",
    "Write one sentence about the sea.",
)


@pytest.fixture(scope="module")
def model(smollm2) -> PreTrainedModel:
    return load_model(smollm2, dtype="float32")


@pytest.fixture(scope="module")
def requests(smollm2) -> list[RolloutRequest]:
    """Prompts of four lengths in the chat template, each twice, one of each with a beginning."""
    tokenizer = load_tokenizer(smollm2)
    beginning = tuple(tokenizer("The answer", add_special_tokens=False)["input_ids"])
    made = []
    for number, question in enumerate(QUESTIONS):
        text = render(tokenizer, [{"role": "user", "content": question}], {})
        ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        made += [RolloutRequest(str(number), ids, seed=number), RolloutRequest(str(number), ids, 99, 1, beginning)]
    return made


@torch.no_grad()
def expected_logprobs(model: PreTrainedModel, rollout: Rollout) -> torch.Tensor:
    """Of every completion token, from the model's own logits over the whole text."""
    logits = model(torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]])).logits[0]
    rows = logits[len(rollout.prompt_ids) - 1 : -1].float().log_softmax(-1)
    return rows[range(len(rows)), list(rollout.completion_ids)]


def completions_of(rollouts: list[Rollout]) -> list[Completion]:
    return [Completion(rollout.prompt_ids, rollout.completion_ids) for rollout in rollouts]


def test_samples_and_scores_in_float32_are_the_models_own(model, requests) -> None:
    """Also the entropy and the top k, from its logits."""
    rollouts = HFEngine(model, model.config.vocab_size).generate(requests, Sampling(24))
    asked = ScoreRequest(top_k=5, entropy=True)
    scored = HFScorer(model, model.config.vocab_size).score(completions_of(rollouts), asked).signal
    for row, rollout in enumerate(rollouts):
        expected = expected_logprobs(model, rollout)
        size = len(expected)
        torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, rtol=0, atol=2e-3)
        torch.testing.assert_close(scored.logprobs[row, :size], expected, rtol=0, atol=2e-3)
        with torch.no_grad():
            logits = model(torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]])).logits[0]
        whole = logits[len(rollout.prompt_ids) - 1 : -1].log_softmax(-1)
        assert scored.entropy is not None and scored.topk_logprobs is not None
        torch.testing.assert_close(scored.entropy[row, :size], -(whole.exp() * whole).sum(-1), rtol=0, atol=2e-3)
        torch.testing.assert_close(scored.topk_logprobs[row, :size], whole.topk(5).values, rtol=0, atol=2e-3)


def test_bfloat16_samples_are_within_the_stated_mismatch(smollm2, requests) -> None:
    """Against whole forwards in bfloat16 with the head in float32; a token may be off by half a nat."""
    model = load_model(smollm2, dtype="bfloat16")
    rollouts = HFEngine(model, model.config.vocab_size).generate(requests, Sampling(24))
    scored = HFScorer(model, model.config.vocab_size).score(completions_of(rollouts), ScoreRequest()).signal.logprobs
    apart = [(scored[i, : len(r.logprobs)] - torch.tensor(r.logprobs)).abs() for i, r in enumerate(rollouts)]
    assert torch.cat(apart).max() < MISMATCH_LIMIT["bfloat16"]
    assert torch.cat(apart).mean() < 0.05


def test_greedy_completions_are_those_of_generate(model, smollm2, requests) -> None:
    """Token by token, in one batch of four lengths; each one alone by transformers."""
    stop_ids = stop_ids_of(model, load_tokenizer(smollm2))
    plain = [request for request in requests if not request.prefix_ids]
    sampling = Sampling(40, temperature=0.0, stop_ids=stop_ids)
    for request, rollout in zip(plain, HFEngine(model, model.config.vocab_size).generate(plain, sampling), strict=True):
        ids = torch.tensor([request.prompt_ids])
        with torch.no_grad():
            whole = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40)
        assert list(rollout.completion_ids) == whole[0, ids.shape[1] :].tolist()


@contextlib.contextmanager
def vllm_backend(form: str, source: str, log: Path) -> Iterator[Any]:
    """vLLM's CPU build on a model in float32."""
    from harness.rollout.server import ServerBackend, ServerProcess
    from harness.rollout.vllm import EngineOptions
    from tests.vllm.conftest import in_process

    if form == "in process":
        with in_process(source, max_length=512, kv_cache_bytes=2**28) as backend:
            yield backend
    else:
        options = EngineOptions(source, None, "float32", 2**28, 64, 128, True, True, 512)
        with ServerBackend(ServerProcess(options, 1, log), None, start_limit_s=300, time_limit_s=60) as backend:
            yield backend


@pytest.mark.vllm
@pytest.mark.parametrize("form", ["in process", "server"])
def test_vllm_writes_and_scores_what_the_model_says(model, smollm2, requests, tmp_path, form: str) -> None:
    """Run in vLLM's environment: the same greedy tokens, and log-probs of samples and scores within the mismatch."""
    from harness.rollout.vllm import VLLMEngine
    from harness.scoring.vllm import VLLMScorer
    from tests.vllm.conftest import largest_difference

    size, bound = model.config.vocab_size, MISMATCH_LIMIT["float32"]
    greedy = Sampling(24, temperature=0.0, stop_ids=stop_ids_of(model, load_tokenizer(smollm2)))
    ours = HFEngine(model, size)
    expected = ours.generate(requests, greedy)
    sampled = ours.generate(requests, Sampling(24))
    asked = ScoreRequest(top_k=5)
    signal = HFScorer(model, size).score(completions_of(sampled), asked).signal
    with vllm_backend(form, smollm2, tmp_path / "server.log") as backend:
        engine = VLLMEngine(backend)
        assert [r.completion_ids for r in engine.generate(requests, greedy)] == [r.completion_ids for r in expected]
        assert largest_difference(engine.generate(requests, Sampling(24)), model, size) < bound
        theirs = VLLMScorer(backend, size, max_logprobs=128).score(completions_of(sampled), asked).signal
    torch.testing.assert_close(theirs.logprobs, signal.logprobs, rtol=0, atol=bound)
    assert theirs.topk_logprobs is not None and signal.topk_logprobs is not None
    torch.testing.assert_close(theirs.topk_logprobs, signal.topk_logprobs, rtol=0, atol=bound)


@pytest.mark.vllm
def test_vllm_evaluates_what_transformers_trained(smollm2, tmp_path) -> None:
    """A checkpoint of two steps: vLLM's greedy answers, and transformers' under a name, are the same."""
    from tests.real.test_training import PLAIN, config
    from tests.vllm.test_run import command

    run = config(smollm2, smollm2, "eopd", tmp_path, PLAIN)
    assert (record := run_job(run)).status == "completed", record.reason
    asked = [f"checkpoint={run.run_folder() / 'checkpoint'}", f"results_dir={tmp_path}", "dtype=float32", "limit=6"]
    asked += [
        "evaluation=tiny",
        "evaluation.decodings.arithmetic=[greedy]",
        "++evaluation.max_new_tokens.arithmetic=24",
    ]
    command("harness.evaluate", "engine=vllm", *asked)
    command("harness.evaluate", "name=by-transformers", *asked)
    (named,) = tmp_path.glob("evaluated-*/by-transformers/seed0")
    folders = (run.run_folder(), named)
    assert [load_record(f / "record.json").evaluations[-1].engine for f in folders] == ["vllm", "hf"]
    rows = [(folder / "generations.jsonl").read_text().splitlines() for folder in folders]
    answers = [sorted(json.loads(row)["ids"] for row in some) for some in rows]  # in the order of their ends
    assert len(answers[0]) == 6 and answers[0] == answers[1]
