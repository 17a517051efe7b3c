"""The size of a model, without loading it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from harness.errors import UserError
from harness.files import locate
from harness.models.backbone import check_decoder
from harness.models.contexts import context_length_of

BYTES = {"float32": 4, "bfloat16": 2, "float64": 8}  # of a number


_QWEN2_7B = {"model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28}


_QWEN2_7B |= {"num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False}


_QWEN2_1_5B = {"model_type": "qwen2", "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12}


_QWEN2_1_5B |= {"num_key_value_heads": 2, "intermediate_size": 8960, "vocab_size": 151936, "tie_word_embeddings": False}


_QWEN3_1_7B = {"model_type": "qwen3", "hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16}


_QWEN3_1_7B |= {"num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 6144}


_QWEN3_1_7B |= {"vocab_size": 151936, "tie_word_embeddings": True}


_QWEN25_0_5B = {**_QWEN2_1_5B, "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14}


_QWEN25_0_5B |= {"intermediate_size": 4864, "tie_word_embeddings": True}


_QWEN25_1_5B = {**_QWEN2_1_5B, "tie_word_embeddings": True}


_QWEN3_0_6B = {**_QWEN3_1_7B, "hidden_size": 1024, "intermediate_size": 3072}


_QWEN3_4B = {**_QWEN3_1_7B, "hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32}


_QWEN3_4B |= {"intermediate_size": 9728}


# From the public config.json of the models that conf/setting/ names, so that their cost is known without fetching
# anything.
KNOWN_CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": _QWEN2_1_5B,
    "Skywork/Skywork-OR1-Math-7B": _QWEN2_7B,
    "Skywork/Skywork-OR1-7B": _QWEN2_7B,
    "lllyx/Qwen3-1.7B-SFT": _QWEN3_1_7B,
    "Qwen/Qwen3-4B": _QWEN3_4B,
    "Qwen/Qwen3-1.7B": _QWEN3_1_7B,
    "Qwen/Qwen3-0.6B": _QWEN3_0_6B,
    "Qwen/Qwen2.5-1.5B-Instruct": _QWEN25_1_5B,
    "Qwen/Qwen2.5-0.5B-Instruct": _QWEN25_0_5B,
}


# per row and token of the vocabulary, while one is drawn: float32 logits, log-softmax, softmax, float64 sums, a mask
DECODE_BYTES = 29


@dataclass(frozen=True)
class ModelSize:
    """What an estimate needs to know of a model."""

    parameters: int  # tied weights once
    cached_numbers: int  # in the key-value cache, per token
    vocab_size: int
    hidden: int
    layers: int
    intermediate: int
    attention: int  # heads x head width
    context: int = 2**31  # positions


@functools.lru_cache
def model_size(name: str, revision: str | None = None) -> ModelSize | None:
    """The size of a local, cached or known model, without fetching or loading it; None for any other. UserError if it
    is no causal LM.
    """
    config = _config(name, revision)
    if config is None:
        return None
    check_decoder(config, name)
    try:
        with torch.device("meta"):  # no memory, no weights
            parameters = AutoModelForCausalLM.from_config(config).num_parameters()
    except (RuntimeError, ValueError, TypeError, AttributeError, ZeroDivisionError) as error:  # sizes that are none
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"the configuration of {name!r} describes no model: {said}.") from error
    return size_of(config, parameters)


def size_of(config: Any, parameters: int) -> ModelSize:
    """From a model's configuration and the number of its parameters."""
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", 0)  # none in a state-space model
    return ModelSize(
        parameters=parameters,
        cached_numbers=cached_numbers_of(config),
        vocab_size=text.vocab_size,
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        attention=heads * _head_dim(text),
        context=context_length_of(config),
    )


def cached_numbers_of(config: Any) -> int:
    """Numbers in the key-value cache per token, as if every layer kept all of them (sliding windows and states keep
    fewer).
    """
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or getattr(text, "num_attention_heads", 0)
    return int(2 * text.num_hidden_layers * heads * _head_dim(text))


def decoded_row_bytes(size: ModelSize, positions: int, dtype: str) -> int:
    """What one row takes while it is decoded: its cache and, of one layer at a time, the copy as it grows; its logits.

    Args: dtype: of the weights.
    """
    cache = BYTES[dtype] * size.cached_numbers * positions
    return cache + cache // max(1, size.layers) + DECODE_BYTES * size.vocab_size


def _head_dim(text: Any) -> int:
    heads = getattr(text, "num_attention_heads", 0)
    return getattr(text, "head_dim", None) or (text.hidden_size // heads if heads else 0)


def _config(name: str, revision: str | None) -> Any:
    if not Path(locate(name)).is_dir() and name in KNOWN_CONFIGS:
        return AutoConfig.for_model(**KNOWN_CONFIGS[name])
    try:
        return AutoConfig.from_pretrained(locate(name), revision=revision, local_files_only=True)
    except (OSError, ValueError):
        return None
