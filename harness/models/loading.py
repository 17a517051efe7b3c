"""Loading models as people bring them: a folder, a Hub id or adapters; what is wrong with one is one sentence."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from harness.errors import UserError
from harness.files import locate
from harness.models.adapters import adapter_in, merge_adapter
from harness.models.backbone import check_causal
from harness.models.contexts import longrope_limit
from harness.models.randomness import switch_off_randomness
from harness.models.transform import transform_of


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or Hub id; of an adapter folder without one, its base's."""
    adapter = adapter_in(name)
    if adapter is not None and not (Path(adapter.folder) / "tokenizer_config.json").is_file():
        name, revision = adapter.base, adapter.base_revision
    with _clear_errors("tokenizer", name):
        tokenizer = AutoTokenizer.from_pretrained(locate(name), revision=revision, trust_remote_code=False)
        if not tokenizer("1 + 1")["input_ids"]:  # transformers makes an empty one where there are no files
            raise ValueError("it knows no text; its files are missing")
    return tokenizer


def load_config(name: str, revision: str | None = None) -> Any:
    """The model configuration of a folder or Hub id."""
    name, revision = _whole_model(name, revision)
    with _clear_errors("model configuration", name):
        return AutoConfig.from_pretrained(locate(name), revision=revision, trust_remote_code=False)


def load_model(name: str, revision: str | None = None, dtype: str = "float32", device: str = "cpu") -> PreTrainedModel:
    """A causal LM on a device, in eval mode with dropout off, checked to be causal and to have a head that
    harness.models.transform knows.

    `dtype` is of the weights: a name in torch, or "auto" for that of the stored ones. An adapter folder is merged into
    its base.
    """
    source, source_revision = _whole_model(name, revision)
    with _clear_errors("model", source):
        kind = dtype if dtype == "auto" else getattr(torch, dtype)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            locate(source), revision=source_revision, dtype=kind, trust_remote_code=False, output_loading_info=True
        )
        model: Any = loaded[0]
        _check_weights(model, loaded[1]["missing_keys"])
    if (adapter := adapter_in(name)) is not None:
        with _clear_errors("adapters", name):
            model = merge_adapter(model, adapter)
    model.to(device)
    switch_off_randomness(model)
    transform_of(model.eval(), name)
    check_causal(model, name)
    if (limit := longrope_limit(model.config)) is not None:
        print(
            f"note: {name}: longrope turns every position otherwise once a text is longer than {limit} tokens; that "
            "is taken as its context.",
            file=sys.stderr,
        )
    return model


def _check_weights(model: PreTrainedModel, missing: Iterable[str]) -> None:
    """ValueError where weights were made up because the files lack them, or are no numbers."""
    if absent := sorted(missing):
        raise ValueError(f"its files lack {len(absent)} of its weights, such as {absent[0]}")
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and weight.itemsize > 1 and not torch.isfinite(weight).all():
            raise ValueError(f"{name} holds numbers that are not finite")


def mend_generation_config(model: PreTrainedModel, name: str) -> None:
    """Replaces a generation configuration that contradicts itself, such as a temperature beside `do_sample: false`:
    transformers loads it and refuses to save it."""
    generation = model.generation_config
    try:
        generation.validate(strict=True)
    except ValueError as error:
        kept = {key: getattr(generation, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        model.generation_config = GenerationConfig(**kept)
        reason = " ".join(str(error).split())
        print(
            f"note: the generation_config of {name} is invalid and could not be saved with a checkpoint, which will "
            f"keep its special tokens only. {reason}",
            file=sys.stderr,
        )


def _whole_model(name: str, revision: str | None) -> tuple[str, str | None]:
    """The model itself: an adapter folder's base."""
    adapter = adapter_in(name)
    return (name, revision) if adapter is None else (adapter.base, adapter.base_revision)


class _clear_errors:
    """Turns the many ways in which a checkpoint can be missing into one sentence."""

    def __init__(self, what: str, name: str, passed: type[Exception] | tuple[()] = ()) -> None:
        self.what, self.name, self.passed = what, name, passed  # the last: left as they are

    def __enter__(self) -> None:
        looks_like_path = self.name.startswith((".", "/", "~")) or self.name.count("/") > 1
        if looks_like_path and not Path(locate(self.name)).is_dir():
            raise UserError(
                f"there is no model folder {self.name!r}; give an existing folder or a Hugging Face Hub id."
            )

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(
            error, (UserError, self.passed)
        ):  # the library raises many types
            folder = Path(locate(self.name))
            if folder.is_dir() and not (folder / "config.json").is_file():
                raise UserError(f"the folder {self.name!r} holds no model: it has no config.json.") from error
            raise UserError(f"cannot load the {self.what} of {self.name!r}: {_said(error)}") from error


def _said(error: Exception) -> str:
    """An error's first line, with the next ones where it ends in a colon."""
    if isinstance(error, pickle.UnpicklingError):
        return "its weights are a pickle that would run code; have them saved as safetensors."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    count = next((number for number, line in enumerate(lines, 1) if not line.endswith(":")), len(lines))
    return " ".join(lines[:count])


def stop_ids_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every end token of the generation configuration, and the tokenizer's."""
    return _stop_ids(model.generation_config, tokenizer)


def stored_stop_ids(name: str, revision: str | None, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The same of a model that is not loaded."""
    try:
        source, source_revision = _whole_model(name, revision)
        with _clear_errors("generation configuration", name, passed=OSError):
            generation = GenerationConfig.from_pretrained(locate(source), revision=source_revision or "main")
    except OSError:  # there is no such file; the model's configuration may say it
        generation = GenerationConfig.from_model_config(load_config(name, revision))
    return _stop_ids(generation, tokenizer)


def _stop_ids(generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    configured = generation.eos_token_id if generation is not None else None
    ids = {*(configured if isinstance(configured, list) else [configured]), tokenizer.eos_token_id}
    if wrong := [i for i in ids if i is not None and type(i) is not int]:
        raise UserError(f"the generation configuration has the end token {wrong[0]!r}, which is no token id; mend it.")
    return tuple(sorted(i for i in ids if i is not None))
