"""Log-probs, the sampler and both engines on real weights, against plain transformers."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from harness.models.loading import load_model, load_tokenizer, stop_ids_of
from harness.models.template import render
from harness.rollout import RolloutRequest, Sampling
from harness.rollout.hf import HFEngine
from harness.scoring import Completion, ScoreRequest
from harness.scoring.hf import HFScorer
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


@pytest.mark.vllm
def test_vllm_samples_what_the_model_says(model, smollm2, requests) -> None:
    """In float32, by vLLM in process; run in its environment."""
    from harness.rollout.vllm import VLLMEngine
    from tests.vllm.conftest import in_process, largest_difference

    with in_process(smollm2, max_length=512, kv_cache_bytes=2**28) as backend:
        rollouts = VLLMEngine(backend).generate(requests, Sampling(24))
    assert largest_difference(rollouts, model, model.config.vocab_size) < MISMATCH_LIMIT["float32"]
