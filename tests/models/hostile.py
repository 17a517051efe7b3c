"""Model folders that a stranger may hand over, each wrong in its own way."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from harness.files import ROOT

SOUND = ROOT / "harness" / "tiny" / "checkpoints" / "student"


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def write(name: str, content: bytes | str) -> Callable[[Path], None]:
    """Replaces a file."""

    def change(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def configured(name: str, **entries: Any) -> Callable[[Path], None]:
    """Replaces entries of a JSON file; None takes one away."""

    def change(folder: Path) -> None:
        known = {**json.loads((folder / name).read_text()), **entries}
        (folder / name).write_text(json.dumps({key: value for key, value in known.items() if value is not None}))

    return change


def cut(name: str, share: float) -> Callable[[Path], None]:
    """Keeps the beginning of a file."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return change


def weights(change_of: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    """Replaces tensors."""

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file(change_of(load_file(path)), path, metadata={"format": "pt"})

    return change


def pickled(folder: Path) -> None:
    """Weights as a pickle, which runs code when it is loaded without care."""
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(folder.parent / "bomb"), protocol=2))


def remote_code(folder: Path) -> None:
    """A class of its own, in a file that makes a file when it is imported."""
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    configured("config.json", model_type="own_model", auto_map=classes)(folder)
    (folder / "own.py").write_text(f"open({str(folder.parent / 'bomb')!r}, 'w')\nOwnConfig = OwnModel = None\n")


def remote_tokenizer(folder: Path) -> None:
    """The same of a tokenizer."""
    entry = {"AutoTokenizer": ["own.OwnTokenizer", None]}
    configured("tokenizer_config.json", tokenizer_class="OwnTokenizer", auto_map=entry)(folder)
    (folder / "own.py").write_text(f"open({str(folder.parent / 'bomb')!r}, 'w')\nOwnTokenizer = None\n")


def _first(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    return weights(lambda found: {name: change(value) if "norm" in name else value for name, value in found.items()})


def of_itself(folder: Path) -> None:
    """Adapters whose base is their own folder."""
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))


HOSTILE: dict[str, Callable[[Path], None]] = {
    "config is a list": write("config.json", "[]"),
    "config is a text": write("config.json", '"model"'),
    "config is empty": write("config.json", ""),
    "config is an empty object": write("config.json", "{}"),
    "config is binary": write("config.json", b"\xff\xfe\x00\x80" * 10),
    "config is deep": write("config.json", "[" * 100_000),
    "config is of an unknown kind": configured("config.json", model_type="nosuch", architectures=["NoSuch"]),
    "sizes are texts": configured("config.json", hidden_size="many", num_hidden_layers="some"),
    "sizes are negative": configured("config.json", hidden_size=-4, num_attention_heads=-1),
    "sizes do not divide": configured("config.json", num_attention_heads=7),
    "sizes are absurd": configured("config.json", hidden_size=10**9, intermediate_size=10**9),
    "vocabulary is another": configured("config.json", vocab_size=3),
    "layers are missing": configured("config.json", num_hidden_layers=9),
    "weights are cut": cut("model.safetensors", 0.6),
    "weights are cut in the header": cut("model.safetensors", 0.001),
    "weights are empty": write("model.safetensors", b""),
    "weights are a text": write("model.safetensors", "version https://git-lfs.github.com/spec/v1\n" * 3),
    "weights announce a huge header": write("model.safetensors", b"\xff" * 8 + b"{}"),
    "weights are missing": lambda folder: (folder / "model.safetensors").unlink(),
    "weights are pickled": pickled,
    "weights are not numbers": _first(lambda value: value * float("nan")),
    "weights are infinite": _first(lambda value: value + float("inf")),
    "weights are of other names": weights(lambda found: {f"x.{name}": value for name, value in found.items()}),
    "code of its own": remote_code,
    "tokenizer of its own": remote_tokenizer,
    "tokenizer is a list": write("tokenizer.json", "[]"),
    "tokenizer is empty": write("tokenizer.json", ""),
    "tokenizer is missing": lambda folder: [path.unlink() for path in folder.glob("*token*")] and None,
    "tokenizer configuration is a list": write("tokenizer_config.json", "[]"),
    "generation configuration is a list": write("generation_config.json", "[]"),
    "end token is a text": configured("generation_config.json", eos_token_id="stop"),
    "end token is outside": configured("generation_config.json", eos_token_id=10**9),
    "template does not parse": write("chat_template.jinja", "{% if %}"),
    "template never ends": write("chat_template.jinja", "{% for i in range(10**12) %}x{% endfor %}"),
    "template reaches out": write("chat_template.jinja", "{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    "adapter is a list": write("adapter_config.json", "[]"),
    "adapter of nothing": write("adapter_config.json", "{}"),
    "adapter of itself": of_itself,
}


def hostile_folder(home: Path, kind: str) -> Path:
    """One of them, beside which a file `bomb` appears if its code is run."""
    folder = home / "model"
    shutil.copytree(SOUND, folder)
    HOSTILE[kind](folder)
    return folder
