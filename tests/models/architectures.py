"""Small random models of the classes that people bring: how each is made (architectures.yaml), and which are tried in
every test run.

Two layers, so that hybrids have one of each kind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
import yaml

VOCAB = 96
SPREAD, NOISE = 0.15, 0.05  # of the weights, so that logits are far from uniform; biases and norms move too

PLAIN: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
FIELDS = {
    "none": {},
    "plain": PLAIN,
    "grouped": PLAIN | {"num_key_value_heads": 2},
    "gpt": {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 256},
}

# name -> class of the configuration, its fields
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    name: (kind, FIELDS[base] | differing)
    for name, (kind, base, differing) in yaml.safe_load(
        Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    ).items()
}

# One or two of every kind; the others are slow together.
ALWAYS = (
    *(
        "llama",
        "llama_attdrop",
        "llama4_text",
        "qwen2_swa",
        "qwen3",
        "qwen3_moe",
        "mistral",
        "gpt2",
        "bloom",
        "gpt_bigcode",
    ),
    *("gemma2", "gemma2_cap2", "granite", "cohere", "minicpm3_mup", "opt_dropout", "starcoder2_real", "phi3_longrope"),
    *("phimoe_real", "mixtral_jitter", "qwen3_5_text", "mamba", "minimax", "recurrent_gemma", "falcon_h1_mult", "lfm2"),
    *("granitemoehybrid_scaled", "jamba", "bert", "xlnet"),
)

# Their cached step leaves out a clamp (time_step_min) that their whole forward has: log-probs of samples are that far
# off, nats.
INEXACT_CACHE = {"nemotron_h": 5e-4, "zamba2": 5e-4}

# transformers' own `generate` raises on it.
NO_REFERENCE = ("xlstm",)


def config_of(name: str) -> Any:
    """The model's configuration."""
    kind, fields = ARCHITECTURES[name]
    special = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    config = getattr(transformers, kind)(**{**fields, "vocab_size": VOCAB, **special})
    for key in ("initializer_range", "init_std"):
        if hasattr(config, key):
            setattr(config, key, SPREAD)
    return config


def class_of(name: str) -> str:
    """The name of the model's class."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config_of(name))].__name__


def build(name: str, folder: Path, seed: int = 1) -> Path:
    """Writes the model, without a tokenizer, to the folder."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config_of(name))
    generator = torch.Generator().manual_seed(seed + 1000)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.is_floating_point() and "A_log" not in key:  # a decay, which must stay one
                parameter.add_(NOISE * torch.randn(parameter.shape, generator=generator))
    model.generation_config = transformers.GenerationConfig(bos_token_id=2, eos_token_id=1, pad_token_id=0)
    model.save_pretrained(folder)
    return folder
