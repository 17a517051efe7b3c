"""Models that are no causal LM, and those of which only the loaded weights tell: refused before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BartConfig,
    BertConfig,
    BertGenerationConfig,
    BertGenerationDecoder,
    BertLMHeadModel,
    T5Config,
    ViTConfig,
    WhisperConfig,
)

from harness.evaluate import main as evaluate
from harness.plan import main as plan
from harness.run import main as run
from harness.tiny.language import build_tokenizer

SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
NO_DECODERS = [
    (BertConfig(**SMALL), "(bert) is no decoder: it is an encoder (is_decoder is false)"),
    (BartConfig(vocab_size=64), "(bart) is no decoder: it is an encoder-decoder"),
    (WhisperConfig(vocab_size=64), "(whisper) is no decoder: it is an encoder-decoder"),
    (T5Config(vocab_size=64), "(t5) is no decoder: transformers has no causal LM of its kind"),
    (ViTConfig(), "(vit) is no decoder: transformers has no causal LM of its kind"),
]


def sentence_of(capsys: pytest.CaptureFixture[str], command: Any, results: Path, *arguments: str) -> str:
    """The one sentence by which the command refuses its input; nothing of it is left."""
    assert command([*arguments, f"results_dir={results}"]) == 2
    captured = capsys.readouterr()
    said = [line for line in captured.err.splitlines() if not line.startswith(("End tokens: ", "warning: "))]
    (error,) = (line for line in said if line.startswith("error: "))
    assert "Traceback" not in captured.err
    assert not list(results.rglob("*.json*"))
    return error


@pytest.mark.parametrize(("config", "words"), NO_DECODERS, ids=lambda value: getattr(value, "model_type", ""))
def test_said_by_the_configuration(
    config: Any, words: str, tmp_path: Path, random_pair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No weights are read: there are none."""
    model = tmp_path / "model"
    config.save_pretrained(model)
    build_tokenizer().save_pretrained(model)
    for side, other in (("student", "teacher"), ("teacher", "student")):
        pair = [f"setting.{side}={model}", f"setting.{other}={random_pair / other}"]
        for more in ([], ["dry_run=true"]):
            assert words in sentence_of(capsys, run, tmp_path / "results", "method=opd,tropd", "seed=0", *pair, *more)
        assert words in sentence_of(capsys, plan, tmp_path / "results", "hardware=rtx4090_x1", *pair)
    given = [f"checkpoint={model}", "evaluation=tiny"]
    assert words in sentence_of(capsys, evaluate, tmp_path / "results", *given)


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize(
    ("kind", "config", "words"),
    [
        (BertLMHeadModel, BertConfig(**SMALL, is_decoder=True), "computes its logits in another way"),
        (BertGenerationDecoder, BertGenerationConfig(**SMALL), "is not causal"),
    ],
)
def test_said_by_the_loaded_model(
    side: str,
    kind: Any,
    config: Any,
    words: str,
    tmp_path: Path,
    random_pair: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By every run of the sweep, in one sentence; nothing of them is left, neither is a table."""
    model = tmp_path / "model"
    torch.manual_seed(0)
    config.update({"eos_token_id": 1, "bos_token_id": 2, "pad_token_id": 0})
    kind(config).save_pretrained(model)
    build_tokenizer().save_pretrained(model)
    other = {"student": "teacher", "teacher": "student"}[side]
    pair = [f"setting.{side}={model}", f"setting.{other}={random_pair / other}", "hydra/launcher=basic"]
    results = tmp_path / "results"
    said = sentence_of(capsys, run, results, "method=opd,tropd", "seed=0,1", "evaluation=none", *pair)
    assert words in said
    assert not list(results.glob("*-*"))


def test_a_refused_run_does_not_take_the_others_along(
    tmp_path: Path, random_pair: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Teacher text that is too short for a prefix is known when it is written: the guided method is refused, the other
    has a row.
    """
    monkeypatch.setattr("harness.training.guidance.first_guided_step", lambda *_: None)
    monkeypatch.setattr("harness.training.mechanisms.check_guidance", lambda _: None)
    small = ["setting.steps=1", "setting.warmup_steps=0", "setting.prompts_per_step=2", "setting.max_new_tokens=8"]
    small += ["engine.micro_batch_prompts=1", "evaluation=none", "hydra/launcher=basic", f"results_dir={tmp_path}"]
    pair = [f"setting.{side}={random_pair / side}" for side in ("student", "teacher")]
    assert run(["method=opd,tropd", "seed=0", *small, *pair]) == 2
    assert "error: no step would get a prefix by the teacher" in capsys.readouterr().err
    assert [path.parent.parent.name for path in tmp_path.glob("*/*/seed0/checkpoint")] == ["opd"]
    assert not list(tmp_path.glob("*/tropd"))
