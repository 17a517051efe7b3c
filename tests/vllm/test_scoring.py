"""The teacher scored by vLLM in process, against HFScorer on the same weights."""

from __future__ import annotations

import pytest
import torch

from harness.errors import UserError
from harness.models.loading import load_model
from harness.rollout.vllm import narrow
from harness.scoring import Completion, ScoreRequest
from harness.scoring.hf import HFScorer
from harness.scoring.vllm import VLLMScorer
from tests.conftest import random_model
from tests.vllm.conftest import CONTEXT, in_process, stored

pytestmark = pytest.mark.vllm

BOUND = 1e-4  # nats
VOCAB = 64


def completions() -> list[Completion]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: tuple(torch.randint(5, 60, (n,), generator=generator).tolist())  # noqa: E731
    return [Completion(draw(10 + i), draw(1 + 7 * i)) for i in range(6)]


@pytest.fixture(scope="module")
def backend(tied):
    with in_process(tied) as backend:
        yield backend


@pytest.fixture(scope="module")
def exact(tied):
    return HFScorer(load_model(tied), VOCAB)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=BOUND)


def test_sampled_tokens(backend, exact):
    found = VLLMScorer(backend, VOCAB, 128).score(completions(), ScoreRequest()).signal
    close(found.logprobs, exact.score(completions(), ScoreRequest()).signal.logprobs)
    assert found.topk_ids is None and found.entropy is None


def test_top_k(backend, exact):
    found = VLLMScorer(backend, VOCAB, 128).score(completions(), ScoreRequest(top_k=8)).signal
    expected = exact.score(completions(), ScoreRequest(top_k=8)).signal
    close(found.logprobs, expected.logprobs)
    close(found.topk_logprobs, expected.topk_logprobs)
    assert torch.equal(found.topk_ids, expected.topk_ids)


def test_no_list_is_made_of_prompt_log_probs(backend, exact, monkeypatch):
    """vLLM's own way makes one of every token's log-probs, ids and ranks."""
    from vllm.v1.engine import logprobs

    monkeypatch.setattr(logprobs, "append_logprobs_for_next_position", None)
    found = VLLMScorer(backend, VOCAB, 128).score(completions(), ScoreRequest(top_k=8)).signal
    close(found.topk_logprobs, exact.score(completions(), ScoreRequest(top_k=8)).signal.topk_logprobs)


def test_vllms_own_form_is_left_to_others(backend):
    """A request without `flat_logprobs`, such as one of the server's completions API."""
    from vllm import SamplingParams

    params = SamplingParams(max_tokens=1, prompt_logprobs=2, detokenize=False)
    (output,) = backend.llm.generate({"prompt_token_ids": [5, 6, 7]}, params, use_tqdm=False)
    first, *others = output.prompt_logprobs
    assert first is None and all(6 + i in row and len(row) in (2, 3) for i, row in enumerate(others))


@pytest.mark.parametrize("share", [0.02, 0.9])
def test_support_of_a_few_rows_and_of_many(backend, exact, share):
    """Few rows are asked for one by one, many as whole sequences; the answer is the same."""
    asked = completions()
    first = VLLMScorer(backend, VOCAB, 128).score(asked, ScoreRequest())
    width = first.signal.logprobs.shape[1]
    valid = torch.arange(width) < torch.tensor([len(c.completion_ids) for c in asked])[:, None]
    mask = valid & (torch.rand(valid.shape, generator=torch.Generator().manual_seed(1)) < share)
    mask[:, 0] = True  # the first completion token too: predicted by the prompt alone
    counted = []
    run = backend.run
    backend.run = lambda calls, done: (counted.append(len(calls)), run(calls, done))
    try:
        ids, logprobs = first.support(mask, 8)
    finally:
        del backend.run
    expected_ids, expected = exact.score(asked, ScoreRequest()).support(mask, 8)
    assert torch.equal(ids, expected_ids)
    close(logprobs, expected)
    assert (counted == [int(mask.sum())]) == (share < 0.1)
    none = first.support(torch.zeros_like(mask), 8)
    assert none[0].shape == (0, 8) == none[1].shape


def test_entropy_is_exact_where_the_whole_vocabulary_may_be_asked_for(backend, exact):
    scored = VLLMScorer(backend, VOCAB, 128).score(completions(), ScoreRequest(entropy=True))
    expected = exact.score(completions(), ScoreRequest(entropy=True))
    close(scored.signal.entropy, expected.signal.entropy)
    assert scored.signal.entropy_upper is None and scored.signal.topk_ids is None
    mask = scored.signal.logprobs != 0
    assert torch.equal(scored.support(mask, 8)[0], expected.support(mask, 8)[0])  # from what is there already


def test_entropy_is_bounded_otherwise(backend, exact):
    found = VLLMScorer(backend, VOCAB, 16).score(completions(), ScoreRequest(top_k=4, entropy=True)).signal
    entropy = exact.score(completions(), ScoreRequest(entropy=True)).signal.entropy
    assert (found.entropy <= entropy + BOUND).all() and (entropy <= found.entropy_upper + BOUND).all()
    valid = found.logprobs != 0
    assert (found.entropy_upper - found.entropy)[valid].max() > 0.1
    assert found.topk_ids.shape[-1] == 4


def test_the_whole_vocabulary_as_support(backend, exact):
    asked = completions()
    mask = torch.zeros(6, 36, dtype=torch.bool)
    mask[2, :5] = True
    ids, logprobs = VLLMScorer(backend, VOCAB, 128).score(asked, ScoreRequest()).support(mask, VOCAB)
    expected_ids, expected = exact.score(asked, ScoreRequest()).support(mask, VOCAB)
    close(logprobs.gather(1, ids.argsort(1)), expected.gather(1, expected_ids.argsort(1)))
    with pytest.raises(UserError, match="max_logprobs=16"):
        VLLMScorer(backend, VOCAB, 16).score(asked, ScoreRequest()).support(mask, VOCAB)


def test_a_padded_head(tmp_path):
    source = stored(tmp_path, random_model(3, vocab=80))
    with in_process(source) as backend:
        narrow(backend, VOCAB)
        found = VLLMScorer(backend, VOCAB, 128).score(completions(), ScoreRequest(entropy=True)).signal
    expected = HFScorer(load_model(source), VOCAB).score(completions(), ScoreRequest(entropy=True)).signal
    close(found.logprobs, expected.logprobs)
    close(found.entropy, expected.entropy)


def test_a_sequence_without_room_is_refused(backend):
    with pytest.raises(UserError, match="takes at most 2047"):
        VLLMScorer(backend, VOCAB, 128).score([Completion((5,), (6,) * (CONTEXT - 1))], ScoreRequest())


@pytest.mark.parametrize("tied", [True, False])
def test_a_float32_head_over_half_weights_follows_a_push(tmp_path, tied):
    """vLLM multiplies by the weight itself then, not by its repacked copy."""
    old, new = (random_model(seed, tied=tied).to(torch.bfloat16) for seed in (1, 5))
    with in_process(stored(tmp_path, old), dtype="bfloat16") as backend:
        assert backend.llm.llm_engine.model_config.head_dtype == torch.float32
        scorer = VLLMScorer(backend, VOCAB, 128)
        for model in (old, new):
            backend.tell("harness_load", weights=[(name, p.detach()) for name, p in model.named_parameters()])
            backend.reset_prefix_cache()
            found = scorer.score(completions(), ScoreRequest()).signal.logprobs
            expected = HFScorer(model, VOCAB).score(completions(), ScoreRequest()).signal.logprobs
            torch.testing.assert_close(found, expected, rtol=0, atol=0.15)  # bfloat16; another model is 10 nats off
