"""What a class does to its logits after the head, found by looking at it: no list of classes or of configuration keys
to keep.

The head's output is replaced by known numbers on its way through the model's own forward, so that a scale and a cap are
read off exactly, whatever the type of the weights and however small the model's own logits are.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.errors import UserError
from harness.models.backbone import backbone_of, evaluating, hidden_states, near, probe_ids, rounding
from harness.numerics.logprobs import Head, LogitsTransform, logits_of

HUGE, TINY = 1e30, 2.0**-17  # a logit that any cap has flattened, and one that no cap has bent (exact in every type)
AGREES = 1e-5  # relative, in at least float32
_FOUND: WeakKeyDictionary[PreTrainedModel, LogitsTransform] = WeakKeyDictionary()


def transform_of(model: PreTrainedModel, name: str | None = None) -> LogitsTransform:
    """The model's transform, looked for once. UserError where its logits are anything else than transform(W h + b)."""
    if model not in _FOUND:
        with evaluating(model), torch.no_grad():
            _FOUND[model] = _find(model, name or type(model).__name__)
    return _FOUND[model]


def _find(model: PreTrainedModel, name: str) -> LogitsTransform:
    if backbone_of(model) is model or model.get_output_embeddings() is None:
        raise UserError(
            f"{name!r} is not a causal LM with a backbone and a linear head; this model class is not supported."
        )
    unknown = UserError(
        f"{name!r} ({type(model).__name__}) computes its logits in another way than by a linear head on the last "
        "hidden state, a scale and a tanh cap; this model class is not supported."
    )
    ids = probe_ids(model, 4)
    try:
        natural = model(input_ids=ids, use_cache=False).logits[0]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise UserError(
            f"{name!r} ({type(model).__name__}) has a config.json by which it cannot be run ({type(error).__name__}: "
            f"{' '.join(str(error).split())}); correct it."
        ) from error
    if not natural.isfinite().all():
        raise UserError(
            f"{name!r} ({type(model).__name__}) computes logits that are no finite numbers: its weights are broken, or "
            f"too large for {model.dtype}; give another checkpoint or type."
        )
    hidden = hidden_states(model, ids, use_cache=False).last_hidden_state[0]
    given = _known_logits(natural)
    try:
        into_head, answer = _observed(model, ids, given)
    except RuntimeError:  # more layers before the head, of the weights' type
        raise unknown from None
    if into_head is None or into_head.shape != hidden.shape or answer.shape != given.shape:
        raise unknown
    before = float((into_head * hidden).sum() / hidden.double().square().sum())
    if not near(into_head, before * hidden.to(into_head.dtype), rounding(model.dtype)):
        raise unknown
    found = _read_off(answer.double())
    if not near(answer.double(), found.apply_(given.double()), AGREES):
        raise unknown
    projection = model.get_output_embeddings()
    bias = getattr(projection, "bias", None)
    before = _exact_one(before)
    if bias is not None and before != 1:
        raise unknown
    found = LogitsTransform(found.scale * before, found.cap)
    if not near(natural, logits_of(hidden, Head(projection.weight, bias, found)), rounding(model.dtype)):
        raise unknown
    return found


def _known_logits(like: Tensor) -> Tensor:
    """[L, V]: two landmarks, and random numbers of many sizes."""
    wide = torch.float32 if like.device.type == "mps" else torch.float64  # that device has no float64
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([0.1, 3.0, 30.0, 300.0], dtype=torch.float64)[:, None]
    known = torch.randn(like.shape, generator=generator, dtype=torch.float64) * sizes
    known[0, :2] = torch.tensor([HUGE, TINY])
    return known.to(like.device, wide)


def _observed(model: PreTrainedModel, ids: Tensor, given: Tensor) -> tuple[Tensor | None, Tensor]:
    """What goes into the head ([L, H], in the type of `given`), and what the model makes of `given` in place of the
    head's answer.
    """
    seen: list[Tensor] = []

    def widen(_: nn.Module, __: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state.to(given.dtype)
        return output

    def look(head: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        seen.append(arguments[0][0])
        return (arguments[0].to(head.weight.dtype), *arguments[1:])

    head = model.get_output_embeddings()
    with ExitStack() as hooks:
        hooks.callback(backbone_of(model).register_forward_hook(widen).remove)
        hooks.callback(head.register_forward_pre_hook(look).remove)
        hooks.callback(head.register_forward_hook(lambda *_: given.clone()[None]).remove)
        answer = model(input_ids=ids, use_cache=False).logits[0]
    return (seen[0].to(given.dtype) if len(seen) == 1 else None), answer


def _read_off(answer: Tensor) -> LogitsTransform:
    top, bottom = answer[0, :2].tolist()
    return LogitsTransform(_exact_one(bottom / TINY), top if abs(top) < HUGE * TINY else None)


def _exact_one(scale: float) -> float:
    """1 where the scale is 1 but for rounding: then nothing is computed at all."""
    return 1.0 if abs(scale - 1) < AGREES else scale
