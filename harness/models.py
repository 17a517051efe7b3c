"""Loading models, and reading log-probs out of them without their logits ever existing as a whole.

Shape legend: B sequences, L tokens of a padded sequence, N token positions, R of them with a divergence weight, H
hidden width, K top-k, V vocabulary.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from harness.errors import UserError
from harness.logprobs import Projection, project
from harness.loss import Targets, head_loss
from harness.paths import locate

HEAD_CHECK_TOLERANCE = (
    1e-3  # nats; float32 rounding of a correct head is far below, any transformation of the logits far above
)


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or Hub id."""
    with _clear_errors("tokenizer", name):
        return AutoTokenizer.from_pretrained(locate(name), revision=revision)


def load_config(name: str, revision: str | None = None) -> Any:
    """The model configuration of a folder or Hub id."""
    with _clear_errors("model configuration", name):
        return AutoConfig.from_pretrained(locate(name), revision=revision)


def load_model(name: str, revision: str | None = None, dtype: str = "float32", device: str = "cpu") -> PreTrainedModel:
    """A causal LM on a device, in eval mode with dropout off, checked to have a plain linear head.

    `dtype` is of the weights: a name in torch, or "auto" for that of the stored ones.
    """
    with _clear_errors("model", name):
        kind = dtype if dtype == "auto" else getattr(torch, dtype)
        model: Any = AutoModelForCausalLM.from_pretrained(locate(name), revision=revision, dtype=kind)
        model.to(device)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for key in ("attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "hidden_dropout"):
        if getattr(model.config, key, None):
            setattr(model.config, key, 0.0)
    _check_head(model, name)
    return model.eval()


class _clear_errors:
    """Turns the many ways in which a checkpoint can be missing into one sentence."""

    def __init__(self, what: str, name: str) -> None:
        self.what, self.name = what, name

    def __enter__(self) -> None:
        looks_like_path = self.name.startswith((".", "/", "~")) or self.name.count("/") > 1
        if looks_like_path and not Path(locate(self.name)).is_dir():
            raise UserError(
                f"there is no model folder {self.name!r}; give an existing folder or a Hugging Face Hub id."
            )

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, ValueError)) and not isinstance(error, UserError):
            folder = Path(locate(self.name))
            if folder.is_dir() and not (folder / "config.json").is_file():
                raise UserError(f"the folder {self.name!r} holds no model: it has no config.json.") from error
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"cannot load the {self.what} of {self.name!r}: {first_line}") from error


@dataclass(frozen=True)
class Head:
    """A model's output projection, sliced to the shared vocabulary."""

    weight: Tensor  # [V, H]
    bias: Tensor | None  # [V]


def head_of(model: PreTrainedModel, vocab_size: int) -> Head:
    """The first `vocab_size` rows of the output projection."""
    projection = model.get_output_embeddings()
    bias = getattr(projection, "bias", None)
    return Head(projection.weight[:vocab_size], None if bias is None else bias[:vocab_size])


def hidden_states(model: PreTrainedModel, input_ids: Tensor, **kwargs: Any) -> Any:
    """The backbone's output (`last_hidden_state` [B, L, H]); right padding needs no mask, since attention is causal."""
    return model.base_model(input_ids=input_ids, **kwargs)


def bind_token_forward(model: PreTrainedModel, vocab_size: int) -> None:
    """Makes `model(...)` return the loss of a micro-batch instead of logits, on this instance only.

    The head is thus read inside the (possibly FSDP- or DDP-wrapped) forward, while class and parameter names stay
    the model's own.
    """

    def token_forward(self: PreTrainedModel, input_ids: Tensor, rows: Tensor, **targets: Any) -> tuple[Tensor, Tensor]:
        """The loss with gradient, and its three terms without.

        Args: input_ids [B, L], right-padded; rows [N], flat indices into [B·L] of the positions that predict the tokens of `targets`, the
            fields of loss.Targets.
        Returns: scalar; [3], see loss.head_loss.
        """
        hidden = hidden_states(self, input_ids, use_cache=False).last_hidden_state.flatten(0, 1)[rows]
        projection = self.get_output_embeddings()
        bias = getattr(projection, "bias", None)
        return head_loss(hidden, projection.weight, bias, vocab_size, Targets(**targets))

    model.forward = types.MethodType(token_forward, model)


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


def context_length(model: PreTrainedModel) -> int:
    """Positions that the model was made for; unbounded if it does not say."""
    return context_length_of(model.config)


def context_length_of(config: Any) -> int:
    """Likewise, from a model configuration."""
    return int(getattr(config, "max_position_embeddings", None) or 2**31)


def stop_ids_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every end token of the generation configuration, and the tokenizer's."""
    return _stop_ids(model.generation_config, tokenizer)


def stored_stop_ids(name: str, revision: str | None, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The same of a model that is not loaded."""
    try:
        generation = GenerationConfig.from_pretrained(locate(name), revision=revision or "main")
    except OSError:  # there is no such file; the model's configuration may say it
        generation = GenerationConfig.from_model_config(load_config(name, revision))
    return _stop_ids(generation, tokenizer)


def _stop_ids(generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    configured = generation.eos_token_id if generation is not None else None
    ids = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    return tuple(sorted(i for i in ids if i is not None))


@torch.no_grad()
def _check_head(model: PreTrainedModel, name: str) -> None:
    """Refuses models whose logits are not a plain linear map of the last hidden state (soft caps, scales): log-probs would be silently wrong."""
    if model.base_model is model or model.get_output_embeddings() is None:
        raise UserError(
            f"{name!r} is not a causal LM with a backbone and a linear head; this model class is not supported."
        )
    ids = torch.arange(4).remainder(model.config.get_text_config().vocab_size)[None].to(model.device)
    expected = model(input_ids=ids).logits[0].float().log_softmax(-1)
    hidden = hidden_states(model, ids, use_cache=False).last_hidden_state[0]
    head = head_of(model, expected.shape[-1])
    every_id = torch.arange(expected.shape[-1], device=model.device).expand(len(hidden), -1)
    found: Projection = project(hidden, head.weight, every_id, head_bias=head.bias)
    tolerance = 0.5 if model.dtype == torch.bfloat16 else HEAD_CHECK_TOLERANCE
    if not (found.logprobs - expected).abs().max() <= tolerance:
        raise UserError(
            f"{name!r} transforms its logits after the head (a soft cap or a scale); this model class is not supported."
        )


def shared_vocab_size(
    student: tuple[PreTrainedTokenizerBase, Any], teacher: tuple[PreTrainedTokenizerBase, Any], top_k: int
) -> int:
    """Checks that two (tokenizer, config) pairs speak the same tokens; both heads are sliced to this many rows before the softmax.

    Heads may be padded to different sizes (151,936 against 152,064 in the Qwen2.5 family); ids must mean the same text.
    """
    maps = [tokenizer.get_vocab() for tokenizer, _ in (student, teacher)]
    if maps[0] != maps[1]:
        raise UserError(
            f"the tokenizers of student and teacher differ: {_first_difference(*maps)}. Use a pair that shares its tokenizer."
        )
    for name in ("eos_token_id", "bos_token_id"):
        ids = [getattr(tokenizer, name) for tokenizer, _ in (student, teacher)]
        if ids[0] != ids[1]:
            raise UserError(f"the tokenizers differ: {name} is {ids[0]} for the student and {ids[1]} for the teacher.")
    size = min(config.get_text_config().vocab_size for _, config in (student, teacher))
    if top_k > size:
        raise UserError(
            f"setting.top_k={top_k} is larger than the shared vocabulary of {size} tokens; give a smaller one."
        )
    return size


def _first_difference(student: dict[str, int], teacher: dict[str, int]) -> str:
    for token in sorted(student.keys() | teacher.keys(), key=lambda t: (student.get(t, 2**31), t)):
        ids = [str(vocabulary.get(token, "missing")) for vocabulary in (student, teacher)]
        if ids[0] != ids[1]:
            return f"token {token!r} is {ids[0]} for the student and {ids[1]} for the teacher ({len(student)} and {len(teacher)} tokens in all)"
    return "no difference"
