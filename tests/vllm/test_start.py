"""vLLM starts with the cache that is computed for it, at the context of a real model."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import Qwen2Config, Qwen2ForCausalLM

from harness.engines.caches import room_beside, vllm_cache_bytes
from harness.models.sizes import cached_numbers_of
from tests.engines.test_checks import execution
from tests.vllm.conftest import in_process, stored

pytestmark = pytest.mark.vllm
CONTEXT = 32_768


def narrow_model() -> Qwen2ForCausalLM:
    """Keys and values of Qwen2.5-0.5B's size (24 layers, 2 heads of 64); narrow otherwise."""
    config = Qwen2Config(
        vocab_size=64,
        hidden_size=128,
        intermediate_size=64,
        num_hidden_layers=24,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=2,
    )
    return Qwen2ForCausalLM(config).bfloat16()


@pytest.mark.parametrize("length", [CONTEXT, 1537])
def test_the_cache_holds_a_sequence_of_the_length(tmp_path: Path, length: int) -> None:
    """0.38 GiB are needed at the whole context, where the default once was a quarter."""
    model = narrow_model()
    options = execution("engine=vllm").vllm
    cache = vllm_cache_bytes(options, cached_numbers_of(model.config), "bfloat16", length, room=room_beside(None))
    source = stored(tmp_path, model)
    with in_process(source, dtype="bfloat16", max_length=length, kv_cache_bytes=cache) as backend:
        assert backend.max_length == length
