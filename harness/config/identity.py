"""What a Setting's hash knows of models and prompts: their content, not their paths.

A file is known by its sha256. That of a large one is kept under `~/.cache/opd-harness` (or $XDG_CACHE_HOME) for as
long as the file's size, times and inode stay, so that a model of many gigabytes is read once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from harness.errors import UserError
from harness.files import locate, write_json

# Whatever transformers reads of a model's folder: other weights, end tokens or another template are another model.
MODEL_FILES = (
    *("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json"),
    *("pytorch_model*.bin", "pytorch_model*.bin.index.json", "adapter_config.json", "adapter_model.bin"),
    *("tokenizer*.json", "*.model", "*.tiktoken", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "chat_template.*", "chat_templates/*"),
)
COMMIT = re.compile(r"[0-9a-f]{40}")
LARGE = 16 * 2**20  # bytes; smaller files are read every time
SETTLED_S = 2.0  # a file that changed within this time may change again under the same time stamp


def model_identity(name: str, revision: str | None) -> str:
    """A folder: the digest of its weights, configurations, tokenizer and chat template. A Hub id: with its commit."""
    folder = Path(locate(name))
    if not folder.is_dir():
        return hub_identity(name, revision, "model")
    files = [path for path in [*folder.glob("*"), *folder.glob("chat_templates/*")] if path.is_file()]
    known = [path for path in files if any(fnmatch(str(path.relative_to(folder)), pattern) for pattern in MODEL_FILES)]
    digest = folder_digest(folder, known)
    if not (folder / "adapter_config.json").is_file():
        return digest
    base = _base_of(folder)  # merged into it
    return "sha256:" + hashlib.sha256(f"{digest} {model_identity(base, None)}".encode()).hexdigest()


def _base_of(adapters: Path) -> str:
    """The model that a folder's adapters belong to, which has none of its own."""
    path = adapters / "adapter_config.json"
    try:
        base = str(json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path"))
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); mend it, or delete it if the model is whole.") from error
    if (Path(locate(base)) / "adapter_config.json").is_file():
        raise UserError(f"{path} names {base!r}, which holds adapters too; merge those into their base first.")
    return base


def prompts_identity(source: str, split: str) -> str:
    """A file: the digest of its bytes. A folder: of all its files, and the split. A Hub data set: commit and split."""
    path = Path(locate(source))
    if path.is_file():
        return "sha256:" + file_digest(path)
    if path.is_dir():
        return f"{folder_digest(path, (file for file in path.rglob('*') if file.is_file()))}:{split}"
    return f"{hub_identity(source, None, 'dataset')}:{split}"


def recipe_of(name: str) -> str | None:
    """The hash of the recipe that a model was trained by (harness.tiny), if its folder says so: replicates share it."""
    recipe = Path(locate(name)) / "recipe.json"
    try:
        return str(json.loads(recipe.read_text(encoding="utf-8"))["recipe_hash"]) if recipe.is_file() else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{recipe} holds no recipe_hash ({error}); restore the folder, or delete that file.") from error


def hub_identity(name: str, revision: str | None, kind: str) -> str:
    """`name@commit`, by what the cache on this machine has of the revision; `name@revision` before it was fetched."""
    from huggingface_hub import constants

    wanted = revision or "main"
    if not COMMIT.fullmatch(wanted):
        with contextlib.suppress(OSError):
            repository = Path(constants.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}"
            wanted = (repository / "refs" / wanted).read_text().strip() or wanted
    return f"{name}@{wanted}"


def is_pinned(identity: str) -> bool:
    """Whether it names a content; else it is of a Hub repository that was not fetched yet, and will change."""
    return identity.startswith("sha256:") or COMMIT.fullmatch(identity.partition("@")[2].partition(":")[0]) is not None


def folder_digest(folder: Path, files: Iterable[Path]) -> str:
    """One digest of several files: their names in the folder, and their content."""
    lines = [f"{path.relative_to(folder).as_posix()} {file_digest(path)}\n" for path in sorted(files)]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file, in hex; of a large one remembered."""
    state = path.stat()
    if state.st_size < LARGE:
        return read_digest(path)
    stamp = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
    note = _cache_folder() / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(note.read_text())
        if found["stamp"] == stamp:
            return str(found["sha256"])
    digest = read_digest(path)
    if time.time() - max(state.st_mtime, state.st_ctime) > SETTLED_S:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
            write_json(note, {"stamp": stamp, "sha256": digest})
    return digest


def read_digest(path: Path) -> str:
    """The same, read now."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "opd-harness" / "digests"
