"""Shared fixtures: random tiny models (no training needed) and small hand-made steps."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
import transformers
from omegaconf import OmegaConf
from transformers import Qwen3Config, Qwen3ForCausalLM

from harness.config.execution import Execution
from harness.config.settings import CONF_DIR, strict

VOCAB = 64


transformers.logging.disable_progress_bar()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def random_model(
    seed: int, hidden: int = 64, layers: int = 2, vocab: int = VOCAB, tied: bool = True
) -> Qwen3ForCausalLM:
    """A randomly initialised Qwen3 whose logits are far from uniform."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=2,
        initializer_range=0.15,
    )
    return Qwen3ForCausalLM(config).eval()


def execution(**changes: Any) -> Execution:
    """conf/engine/hf.yaml on the CPU, without a checkpoint in between."""
    shipped = OmegaConf.to_container(OmegaConf.load(CONF_DIR / "engine" / "hf.yaml"))
    assert isinstance(shipped, dict)
    given = {str(key): value for key, value in shipped.items()} | {"device": "cpu", "save_every": 1000}
    return dataclasses.replace(strict(Execution, given, "engine"), **changes)


@pytest.fixture(scope="session")
def random_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `student` and `teacher`: random weights, the tiny tokenizer."""
    from harness.tiny.language import build_tokenizer

    root = tmp_path_factory.mktemp("pair")
    for name, seed, hidden in (("student", 1, 64), ("teacher", 2, 96)):
        random_model(seed, hidden).save_pretrained(root / name)
        build_tokenizer().save_pretrained(root / name)
    return root
