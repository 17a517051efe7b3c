"""Builds checkpoints: ordinary Hugging Face folders, each with a `recipe.json` (how it was made, how good it is).

A folder appears under its name only when it is whole, so a build that is stopped leaves nothing that looks finished.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, Qwen3ForCausalLM

from harness.errors import UserError
from harness.seeds import seed_of
from harness.tiny.data import EVALUATION_PROBLEMS
from harness.tiny.language import BOS, EOS, PAD, build_tokenizer
from harness.tiny.problems import distinct_problems
from harness.tiny.recipes import Recipe
from harness.tiny.train import measure_accuracy, train

RECIPE_FILE = "recipe.json"
_ACCURACY_SAMPLES = 4  # of every development problem


def is_complete(folder: Path, recipe: Recipe) -> bool:
    """Whether the model is there already. One that another recipe made is refused, not kept or replaced in silence."""
    try:
        found = json.loads((folder / RECIPE_FILE).read_text())["recipe_hash"]
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / RECIPE_FILE} is unreadable ({error!r}): build again with --fresh.") from error
    if found != recipe.hash:
        raise UserError(
            f"{folder} was built by recipe {found}, but {recipe.name} is now recipe {recipe.hash}: "
            "build again with --fresh, or elsewhere with --out."
        )
    return True


def save(model: Qwen3ForCausalLM, folder: Path) -> None:
    """bfloat16 weights, tokenizer, and a generation config that samples from the model's own distribution."""
    model.bfloat16()
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, top_p=1.0, top_k=0, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS
    )
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)


def measured(folder: Path, recipe: Recipe, replicate: int) -> dict[str, Any]:
    """The sampled accuracy of the saved (rounded) weights, computed in float32 on development problems."""
    model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    problems = distinct_problems("development", EVALUATION_PROBLEMS)
    generator = torch.Generator().manual_seed(seed_of("tiny_accuracy", recipe.name, replicate))
    return {
        "split": "development",
        "problems": len(problems),
        "samples_per_problem": _ACCURACY_SAMPLES,
        "temperature": 1.0,
        "accuracy": round(measure_accuracy(model, problems, _ACCURACY_SAMPLES, generator), 4),
    }


def build(recipe: Recipe, folder: Path, replicate: int, advance: Callable[[int], None] = lambda steps: None) -> float:
    """Trains, saves and measures one model, then puts it in place of whatever `folder` held. Returns its accuracy."""
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        save(train(recipe, replicate, advance), partial)
        evaluation = measured(partial, recipe, replicate)
        record = {
            "name": recipe.name,
            "recipe_hash": recipe.hash,
            "seed": replicate,
            "recipe": recipe.description(),
            "evaluation": evaluation,
        }
        (partial / RECIPE_FILE).write_text(json.dumps(record, indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return float(evaluation["accuracy"])
