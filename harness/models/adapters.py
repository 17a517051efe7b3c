"""LoRA adapters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    PreTrainedModel,
)

from harness.errors import UserError


def add_lora(model: PreTrainedModel, rank: int) -> Any:
    """Adds LoRA adapters to every linear layer but the head, in place; only they are trained. Scale 2 (alpha = 2·rank), no dropout.

    Hu et al., arXiv 2106.09685; an adapter starts as the zero map. Needs peft. Returns peft's view of the model, whose
    `merge_and_unload()` gives the model with the adapters merged into its weights.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise UserError("setting.lora_rank needs peft: pip install -e '.[lora]'.") from None
    targets = sorted(
        {name.rsplit(".", 1)[-1] for name, part in model.base_model.named_modules() if type(part) is nn.Linear}
    )
    torch.manual_seed(0)  # of the adapters' first factor; the second is zero
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets))
