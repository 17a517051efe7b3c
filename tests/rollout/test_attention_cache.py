"""The sampler's cache and attention against what they replace, in float64 where there is something to compute."""

from __future__ import annotations

import types

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from harness.rollout import RolloutRequest, Sampling, attention_cache
from harness.rollout.attention_cache import GROWTH, GrowingLayer, folded_attention
from harness.rollout.hf import BLOCK_IDS, HFEngine, invert


def attention(heads: int, key_heads: int, width: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Query, key, value and mask of 3 rows of 9 positions, of which the first 0, 2 and 5 are padding."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((3, heads, 1, width), (3, key_heads, 9, width), (3, key_heads, 9, width))
    query, key, value = (torch.randn(*size, generator=generator).to(dtype) for size in sizes)
    return query, key, value, (torch.arange(9) >= torch.tensor([0, 2, 5])[:, None])[:, None, None]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize(("heads", "key_heads"), [(8, 2), (14, 2), (8, 8)])
def test_folded_attention_is_attention(heads: int, key_heads: int, dtype: torch.dtype, tolerance: float) -> None:
    """Against the softmax written out in float64, head by head; 8 heads of 64 are wide enough to be folded."""
    query, key, value, mask = attention(heads, key_heads, 64, dtype)
    module = types.SimpleNamespace(num_key_value_groups=heads // key_heads, is_causal=True)
    found, _ = folded_attention(module, query, key, value, mask, scaling=0.125)
    for head in range(heads):
        keys, values = (x[:, head * key_heads // heads].double() for x in (key, value))
        scores = 0.125 * (query[:, head].double() @ keys.transpose(1, 2))
        weights = scores.masked_fill(~mask[:, 0], -torch.inf).softmax(-1)
        torch.testing.assert_close(found[:, :, head].double(), weights @ values, rtol=0, atol=tolerance)


def test_a_narrow_model_in_float32_is_left_to_transformers() -> None:
    """To the bit: the tiny models' published figures were made so."""
    module = types.SimpleNamespace(num_key_value_groups=4, is_causal=True)
    query, key, value, mask = attention(4, 1, 32, torch.float32)
    found, expected = (f(module, query, key, value, mask) for f in (folded_attention, sdpa_attention_forward))
    assert torch.equal(found[0], expected[0])


def test_a_model_of_many_heads_a_key_is_sampled_without_repeated_keys(monkeypatch) -> None:
    """Prompts of different lengths; log-probs are those of whole forwards, and the model is as before afterwards."""

    def only_prompts(module, query, *rest, **named):
        assert query.shape[2] > 1
        return sdpa_attention_forward(module, query, *rest, **named)

    monkeypatch.setattr(attention_cache, "sdpa_attention_forward", only_prompts)
    torch.manual_seed(0)
    sizes = {"hidden_size": 512, "intermediate_size": 64, "num_hidden_layers": 2, "initializer_range": 0.1}
    config = Qwen2Config(vocab_size=64, num_attention_heads=8, num_key_value_heads=1, **sizes)
    model = Qwen2ForCausalLM(config).eval()
    asked = [RolloutRequest(str(i), tuple(range(3, 5 + 4 * i)), seed=i) for i in range(4)]
    for rollout in HFEngine(model, 64).generate(asked, Sampling(GROWTH + 10)):
        ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids])
        with torch.no_grad():
            rows = model(ids).logits[0, len(rollout.prompt_ids) - 1 : -1].log_softmax(-1)
        expected = rows[range(len(rows)), list(rollout.completion_ids)]
        torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, rtol=0, atol=2e-5)
    assert model.config._attn_implementation == "sdpa"


def test_a_cache_that_grows_holds_what_was_written() -> None:
    """Past two growths, with rows leaving in between; against plain concatenation."""
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(4, 2, 3, 8, generator=generator) for _ in range(2))
    layer = GrowingLayer(keys, values)
    for step in range(2 * GROWTH + 5):
        new = torch.randn(2, len(keys), 2, 1, 8, generator=generator)
        keys, values = torch.cat([keys, new[0]], 2), torch.cat([values, new[1]], 2)
        found = layer.update(new[0], new[1])
        assert torch.equal(found[0], keys) and torch.equal(found[1], values)
        if step in (5, GROWTH):
            keep = torch.tensor([2, 0] if step == 5 else [1])
            layer.batch_select_indices(keep)
            keys, values = keys[keep], values[keep]
    assert layer.get_seq_length() == 3 + 2 * GROWTH + 5


def test_a_large_vocabulary_is_inverted_block_by_block() -> None:
    """Against the cumulative sum of all in float64, at the middle of every id's share, at 0 and at the last number
    below 1; a third of the ids, a whole block and the last ids have no weight and are never found.
    """
    size = 4 * BLOCK_IDS + 7
    weights = torch.rand(size, generator=torch.Generator().manual_seed(0)) ** 8
    weights[::3] = 0
    weights[BLOCK_IDS : 2 * BLOCK_IDS] = 0
    weights[-5:] = 0
    cumulative = weights.double().cumsum(0)
    ids = weights.nonzero()[:, 0]
    middles = (cumulative[ids] - weights[ids].double() / 2) / cumulative[-1]
    uniforms = torch.cat([torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64), middles])
    expected = torch.cat([ids[:1], ids[-1:], ids])
    found = invert(weights.expand(len(uniforms), size), uniforms)
    assert weights[found].min() > 0
    clear = weights[expected] > 1e-12  # a smaller share of a sum of 300 has no middle in float64
    assert torch.equal(found[clear], expected[clear]) and clear.sum() > 1900
