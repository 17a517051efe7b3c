"""Checkpoints that are broken, or lack something: one sentence, and never random numbers in its place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.errors import UserError
from harness.models.adapters import add_lora
from harness.models.loading import load_config, load_model, load_tokenizer, stored_stop_ids
from harness.tiny.language import build_tokenizer

WEIGHT = "model.layers.1.mlp.up_proj.weight"
Edit = Callable[[Path], Any]


@pytest.fixture
def folder(random_pair: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_pair / "student", tmp_path / "model"))


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Edit:
    """An edit of the weights' file."""

    def edit(folder: Path) -> None:
        stored = load_file(folder / "model.safetensors")
        change(stored)
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def entries(name: str, **given: object) -> Edit:
    """An edit of a JSON file."""
    return lambda folder: (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **given}))


def text(name: str, content: str) -> Edit:
    return lambda folder: (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (weights(lambda w: w.pop(WEIGHT)), [f"lack 1 of those that Qwen3ForCausalLM has, such as {WEIGHT}"]),
        (
            weights(lambda w: [w.update({f"module.{key}": w.pop(key)}) for key in list(w)]),
            ["lack 25", "other weights, such as module."],
        ),
        (weights(lambda w: w.update({WEIGHT: torch.zeros(3, 4)})), [WEIGHT, "[3, 4] in the files", "[128, 64] by"]),
        (entries("config.json", vocab_size=80), ["do not fit its config.json", "[64, 64]", "[80, 64]"]),
        (weights(lambda w: w[WEIGHT].fill_(float("nan"))), [WEIGHT, "holds numbers that are not finite"]),
        (text("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"), ["cannot load the model"]),
        (entries("config.json", hidden_size=None), ["cannot load the model configuration", "hidden_size"]),
        (entries("config.json", hidden_act="nosuch"), ["cannot load the model", "'nosuch'"]),
        (
            entries("config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
            ["cannot load the model", "GPTQ"],
        ),
    ],
)
def test_one_sentence(edit: Edit, words: list[str], folder: Path) -> None:
    edit(folder)
    with pytest.raises(UserError) as refused:
        load_model(str(folder))
    assert all(word in str(refused.value) for word in words), refused.value
    assert "\n" not in str(refused.value)


def test_weights_that_have_no_place_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as those of a layer that config.json does not count."""
    weights(lambda w: w.update({"model.layers.2.mlp.up_proj.weight": w[WEIGHT].clone()}))(folder)
    load_model(str(folder))
    said = "1 weights of its files have no place in the model, such as model.layers.2.mlp.up_proj.weight"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "cannot be read"), ('{"eos_token_id": "x"}', "has 'x'"), ('{"eos_token_id": [1, [2]]}', "has [2]")],
)
def test_end_tokens_that_cannot_be_read(content: str, words: str, folder: Path) -> None:
    """They are not taken from config.json in its place."""
    text("generation_config.json", content)(folder)
    with pytest.raises(UserError, match=r"generation_config\.json") as refused:
        stored_stop_ids(str(folder), None, build_tokenizer())
    assert words in str(refused.value)


def test_a_folder_without_a_tokenizer(folder: Path) -> None:
    """transformers makes one that knows a special token and no other."""
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UserError, match="special tokens only; add its files"):
        load_tokenizer(str(folder))


@pytest.fixture
def adapter(random_pair: Path, tmp_path: Path) -> Path:
    pytest.importorskip("peft")
    add_lora(load_model(str(random_pair / "student")), 4).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_merged_adapter_is_trained_whole(adapter: Path, folder: Path) -> None:
    """peft freezes a base; merged, it is a model as any other, also where the base's configuration lies beside it."""
    shutil.copy(folder / "config.json", adapter)
    assert all(parameter.requires_grad for parameter in load_model(str(adapter)).parameters())
    assert load_config(str(adapter)).hidden_size == 64


def test_adapters_beside_whole_weights_are_not_guessed_at(adapter: Path, folder: Path) -> None:
    """transformers would lay them over these weights, which a merge has mostly done already."""
    shutil.copy(folder / "config.json", adapter)
    shutil.copy(folder / "model.safetensors", adapter)
    with pytest.raises(UserError, match="holds adapters and whole weights"):
        load_model(str(adapter))


def test_adapters_that_lack_a_part(adapter: Path) -> None:
    """The missing ones would be the zero map."""
    path = adapter / "adapter_model.safetensors"
    stored = load_file(path)
    stored.pop(next(key for key in stored if "layers.1" in key))
    save_file(stored, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="missing adapter keys"):
        load_model(str(adapter))
