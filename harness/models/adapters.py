"""LoRA adapters: adding them to a student, reading it with them merged, loading a folder that holds nothing else."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from harness.errors import UserError
from harness.files import locate
from harness.models.backbone import backbone_of

WHOLE_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")  # beside adapter_model.*, by transformers' names


def add_lora(model: PreTrainedModel, rank: int) -> Any:
    """Adds LoRA adapters to every linear map but the head, in place; only they are trained. Scale 2 (alpha = 2·rank),
    no dropout.

    Linear layers, GPT-2's transposed ones, and the experts of a mixture, which are kept as one parameter [experts, .,
    .]. Hu et al., arXiv 2106.09685; an adapter starts as the zero map. Needs peft. Returns peft's view of the model,
    whose `merge_and_unload()` gives the model with the adapters merged into its weights.
    """
    peft = _peft("setting.lora_rank")
    layers = {name: part for name, part in backbone_of(model).named_modules() if type(part) in (nn.Linear, Conv1D)}
    experts = {
        f"{name.rsplit('.', 1)[-1]}.{own}"
        for name, part in backbone_of(model).named_modules()
        for own, parameter in part.named_parameters(recurse=False)
        if parameter.dim() == 3 and not isinstance(part, nn.Conv1d | nn.ConvTranspose1d)
    }
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=sorted({name.rsplit(".", 1)[-1] for name in layers}),
        target_parameters=sorted(experts) or None,
        fan_in_fan_out=any(isinstance(part, Conv1D) for part in layers.values()),
    )
    torch.manual_seed(0)  # of the adapters' first factor; the second is zero
    try:
        return peft.get_peft_model(model, config)
    except ValueError as error:  # peft knows classes whose kernels read weights past their modules (Mamba)
        raise UserError(
            f"setting.lora_rank={rank}: {type(model).__name__} takes no adapters ({error}); give null to train all "
            "weights."
        ) from error


def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter under its name in a checkpoint; where `add_lora` has put adapters, the base's weight and their
    scaled product together, one layer at a time. The model's own weights stay as they are.
    """
    adapted: dict[str, list[Any]] = {}  # name of a parameter -> the layers of peft that adapt it
    for name, layer in model.named_modules():
        if hasattr(layer, "base_layer") and hasattr(layer, "get_delta_weight"):
            parameter = getattr(layer, "parameter_name", "weight")  # of experts, which are no layer of their own
            adapted.setdefault(_base_name(f"{name}.{parameter}"), []).append(layer)
    for name, weight in model.named_parameters():
        if any(part.startswith("lora_") for part in name.split(".")):
            continue
        name = _base_name(name)
        merged: Tensor = weight
        for layer in adapted.get(name, []):
            for adapter in layer.active_adapters:
                merged = merged + layer.get_delta_weight(adapter).to(weight.dtype)
        yield name, merged


def _base_name(name: str) -> str:
    """Of a parameter that peft has moved into `base_layer`, the name that it had before."""
    return ".".join(part for part in name.split(".") if part != "base_layer")


@dataclass(frozen=True)
class Adapter:
    """A folder with adapters and without a model of its own."""

    folder: str
    base: str  # folder or Hub id of the model that they belong to
    base_revision: str | None


def adapter_in(name: str) -> Adapter | None:
    """The adapters of a folder that holds no other weights; None for any other folder and for Hub ids."""
    folder = Path(locate(name))
    file = folder / "adapter_config.json"
    if not file.is_file():
        return None
    if whole := [path.name for pattern in WHOLE_WEIGHTS for path in folder.glob(pattern)]:
        raise UserError(
            f"{folder} holds adapters and whole weights ({whole[0]}); take adapter_config.json out of it to use these, "
            "or the whole weights to have the adapters merged into their base."
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        base = content["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        base = None
    if not isinstance(base, str) or not base:
        raise UserError(f"{file} names no base_model_name_or_path; name the model that the adapters belong to.")
    return Adapter(str(folder), base, content.get("revision"))


def merge_adapter(model: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    """The base model with the adapters merged into its weights."""
    peft = _peft(f"the adapter folder {adapter.folder!r}")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys")  # they would stay at zero
        merged = peft.PeftModel.from_pretrained(model, adapter.folder).merge_and_unload()
    return merged.requires_grad_(True)  # peft has frozen the base


def _peft(what: str) -> Any:
    try:
        import peft
    except ImportError:
        raise UserError(f"{what} needs peft: pip install -e '.[lora]'.") from None
    return peft
