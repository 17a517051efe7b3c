"""Loading models as people bring them: a folder, a Hub id or adapters; what is wrong with one is one sentence."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
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
from harness.models.backbone import check_causal, check_decoder
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
    if set(tokenizer.get_vocab()) <= set(tokenizer.get_added_vocab()):  # what transformers makes of missing files
        raise UserError(f"the tokenizer of {name!r} has special tokens only; add its files, such as tokenizer.json.")
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
    its base. UserError where a weight is missing or of another shape.
    """
    check_decoder(load_config(name, revision), name)
    source, source_revision = _whole_model(name, revision)
    with _clear_errors("model", source):
        kind = dtype if dtype == "auto" else getattr(torch, dtype)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            locate(source),
            revision=source_revision,
            dtype=kind,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the report names them
        )
    model, report = loaded  # the first is all that the signature knows of
    _check_complete(report, source, model)
    _check_finite(source, model)
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


def _check_complete(report: Mapping[str, Any], name: str, model: PreTrainedModel) -> None:
    """UserError where transformers would train on or score by random numbers, since the files lack a weight."""
    other = "; its files have other weights, such as {}" if report["unexpected_keys"] else ""
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"the weights of {name!r} lack {len(missing)} of those that {type(model).__name__} has, such as "
            f"{missing[0]}{other.format(*sorted(report['unexpected_keys'])[:1])}; complete the files."
        )
    if mismatched := sorted(report["mismatched_keys"]):
        weight, stored, expected = mismatched[0]
        raise UserError(
            f"the weights of {name!r} do not fit its config.json: {weight} is {list(stored)} in the files and "
            f"{list(expected)} by the configuration; correct the one or the other."
        )
    if other:
        count, first = len(report["unexpected_keys"]), min(report["unexpected_keys"])
        print(
            f"note: {name}: {count} weights of its files have no place in the model, such as {first}.", file=sys.stderr
        )


def _check_finite(name: str, model: PreTrainedModel) -> None:
    """UserError for weights that are no numbers."""
    for weight, value in model.named_parameters():
        if value.is_floating_point() and value.itemsize > 1 and not torch.isfinite(value).all():
            raise UserError(f"the weights of {name!r}: {weight} holds numbers that are not finite; mend its files.")


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

    def __init__(self, what: str, name: str, *passed: type[Exception]) -> None:
        self.what, self.name = what, name
        self.passed: tuple[type[Exception], ...] = (
            UserError,
            torch.OutOfMemoryError,
            MemoryError,
            *passed,
        )  # left as they are

    def __enter__(self) -> None:
        looks_like_path = self.name.startswith((".", "/", "~")) or self.name.count("/") > 1
        if looks_like_path and not Path(locate(self.name)).is_dir():
            raise UserError(
                f"there is no model folder {self.name!r}; give an existing folder or a Hugging Face Hub id."
            )

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, self.passed):  # the library raises many types
            folder = Path(locate(self.name))
            described = [name for name in ("config.json", "adapter_config.json") if (folder / name).is_file()]
            if folder.is_dir() and not described:
                raise UserError(f"the folder {self.name!r} holds no model: it has no config.json.") from error
            raise UserError(f"cannot load the {self.what} of {self.name!r}: {_first_words(error)}") from error


def _first_words(error: Exception) -> str:
    """The first line that says something, after the error's type where that says more."""
    if isinstance(error, pickle.UnpicklingError):
        return "its weights are a pickle that would run code; have them saved as safetensors."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return said if said and isinstance(error, (OSError, ValueError, ImportError)) else f"{type(error).__name__} {said}"


def stop_ids_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every end token of the generation configuration, and the tokenizer's."""
    return _stop_ids(model.generation_config, tokenizer)


def stored_stop_ids(name: str, revision: str | None, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The same of a model that is not loaded."""
    source, source_revision = _whole_model(name, revision)
    try:
        with _clear_errors("generation configuration", source, OSError):
            generation = GenerationConfig.from_pretrained(locate(source), revision=source_revision or "main")
    except OSError as error:  # there is no such file; the model's configuration may say it
        if (Path(locate(source)) / "generation_config.json").is_file():
            raise UserError(
                f"the generation_config.json of {source!r} cannot be read: {_first_words(error)}"
            ) from error
        generation = GenerationConfig.from_model_config(load_config(name, revision))
    return _stop_ids(generation, tokenizer)


def _stop_ids(generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    configured = generation.eos_token_id if generation is not None else None
    listed = configured if isinstance(configured, list) else [configured]
    if wrong := [i for i in listed if i is not None and (type(i) is not int or i < 0)]:
        raise UserError(
            f"generation_config.json: eos_token_id has {wrong[0]!r}; it must be a token's id or a list of ids."
        )
    ids = set(listed) | {tokenizer.eos_token_id}
    return tuple(sorted(i for i in ids if i is not None))
