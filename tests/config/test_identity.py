"""A model or data set is known by its content: every file that matters changes the hash, and nothing else does."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from harness.config import identity
from harness.config.identity import file_digest, is_pinned, model_identity, prompts_identity, recipe_of
from harness.files import ROOT

STUDENT = ROOT / "harness" / "tiny" / "checkpoints" / "student"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the tiny student, recipe and all."""
    return Path(shutil.copytree(STUDENT, tmp_path / "model"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


EDITS = {
    "weights": lambda folder: flip(folder / "model.safetensors"),
    "template": lambda folder: (folder / "chat_template.jinja").write_text("{{ messages }}"),
    "named template": lambda folder: named_template(folder),
    "end token": lambda folder: edit(folder / "generation_config.json", eos_token_id=[1, 2]),
    "no generation config": lambda folder: (folder / "generation_config.json").unlink(),
    "tokenizer": lambda folder: edit(folder / "tokenizer_config.json", eos_token="x"),
    "vocabulary": lambda folder: flip(folder / "tokenizer.json"),
    "configuration": lambda folder: edit(folder / "config.json", rope_theta=1.0),
}


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def named_template(folder: Path) -> None:
    (folder / "chat_templates").mkdir()
    (folder / "chat_templates" / "tool_use.jinja").write_text("{{ messages }}")


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_another_model_and_the_old_content_the_old_one(model: Path, tmp_path: Path, name: str) -> None:
    before = model_identity(str(model), None)
    kept = shutil.copytree(model, tmp_path / "kept")
    EDITS[name](model)
    assert model_identity(str(model), None) != before
    assert model_identity(str(kept), None) == before  # wherever it lies


def test_what_transformers_does_not_read_is_not_in_it(model: Path) -> None:
    before = model_identity(str(model), "any revision")
    (model / "README.md").write_text("a card")
    (model / "recipe.json").unlink()
    (model / "training_args.bin").write_bytes(b"x")
    assert model_identity(str(model), None) == before


def test_bin_weights_are_read(model: Path) -> None:
    """pytorch_model.bin is the only file of weights of older models."""
    (model / "model.safetensors").unlink()
    found = set()
    for value in (0.0, 1.0):
        torch.save({"weight": torch.full((4,), value)}, model / "pytorch_model.bin")
        found.add(model_identity(str(model), None))
    assert len(found) == 2


def test_replicates_of_a_recipe_are_different_models_of_one_recipe() -> None:
    folders = [ROOT / "results" / "students" / f"student_seed{k}" / "student" for k in (1, 2, 3)]
    assert len({model_identity(str(folder), None) for folder in folders}) == 3
    assert len({recipe_of(str(folder)) for folder in folders}) == 1
    assert recipe_of("some/model") is None


def test_a_data_folder_is_known_by_its_files(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.jsonl").write_text('{"prompt": "a"}\n')
    before = prompts_identity(str(data), "train")
    assert prompts_identity(str(data), "test") != before
    (data / "train.jsonl").write_text('{"prompt": "b"}\n')
    assert prompts_identity(str(data), "train") != before


def test_a_hub_repository_is_known_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert model_identity("some/model", None) == "some/model@main"
    assert model_identity("some/model", "v2") == "some/model@v2"
    for folder, commit in (("models--some--model", "a" * 40), ("datasets--some--data", "b" * 40)):
        (tmp_path / folder / "refs").mkdir(parents=True)
        (tmp_path / folder / "refs" / "main").write_text(commit)
    assert model_identity("some/model", None) == f"some/model@{'a' * 40}"
    assert model_identity("some/model", "c" * 40) == f"some/model@{'c' * 40}"
    assert prompts_identity("some/data", "train") == f"some/data@{'b' * 40}:train"
    pinned = [
        is_pinned(found) for found in ("some/model@main", f"some/model@{'a' * 40}", f"d@{'b' * 40}:train", "sha256:1")
    ]
    assert pinned == [False, True, True, True]


def test_a_large_file_is_read_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(identity, "LARGE", 4)
    monkeypatch.setattr(identity, "SETTLED_S", -1.0)
    reads = []
    real = identity.read_digest
    monkeypatch.setattr(identity, "read_digest", lambda path: reads.append(path) or real(path))
    path = tmp_path / "weights.bin"
    path.write_bytes(b"12345678")
    first = file_digest(path)
    assert file_digest(path) == first and len(reads) == 1
    times = path.stat()
    path.write_bytes(b"12345679")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # the old time of its content, as cp -p leaves it
    assert file_digest(path) != first and len(reads) == 2


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(identity, "LARGE", 4)
    (tmp_path / "weights.bin").write_bytes(b"12345678")
    file_digest(tmp_path / "weights.bin")
    assert not (tmp_path / "cache").exists()
