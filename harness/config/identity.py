"""What a Setting's hash knows of models and prompts: their content, not their paths."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from harness.files import locate


def model_identity(name: str, revision: str | None) -> str:
    """What a Setting's hash knows of a model: its recipe, the bytes of its weights, or its Hub id and revision."""
    folder = Path(locate(name))
    if not folder.is_dir():
        return f"{name}@{revision or 'main'}"
    recipe = folder / "recipe.json"
    if recipe.is_file():
        return "recipe:" + json.loads(recipe.read_text())["recipe_hash"]
    digest = hashlib.sha256()
    for path in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        if path.is_file():
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return "sha256:" + digest.hexdigest()


def prompts_identity(source: str, split: str) -> str:
    """What a Setting's hash knows of the prompts: the bytes of a file, or the name and split of a Hub data set."""
    path = Path(locate(source))
    if path.is_file():
        return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{source}:{split}"
