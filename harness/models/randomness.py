"""Dropout and its kin, switched off: a distilled token is scored and trained under the distribution that it was drawn
from.

Numbers are set to zero where modules keep them (many classes take them from the configuration at construction, as plain
floats); a check tells whether anything random is left.
"""

from __future__ import annotations

import re
import types
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from harness.errors import UserError
from harness.models.backbone import hidden_states, near, probe_ids, rounding
from harness.models.contexts import context_length_of

# in the name of a rate: attention_dropout, resid_pdrop, layerdrop, router_jitter_noise
RANDOM = re.compile("drop|jitter")
# tried in both modes: PhiMoE's router samples between experts that are nearly equal, one token in a hundred
TOKENS = 256
# relative, of two gradients in any type: their sums may be taken in another order; a wrong one is off by tenths
GRADIENT_SLACK = 0.05
# whose rate is called `p`
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
LARGE_RATE = 0.9  # is tried in eval mode, where a rate that means randomness alone does nothing


def switch_off_randomness(model: PreTrainedModel) -> None:
    """Sets every rate of dropout, layer dropping and router noise to zero, in the modules and in the configuration that
    they read.

    A number that eval mode reads too is no such rate (PhiMoE's router takes its noise for a threshold as well): it is
    left alone.
    """
    model.eval()
    for name, holders in _rates(model).items():
        values = [getattr(holder, name) for holder in holders]
        states = []
        for tried in (LARGE_RATE, 0.0):
            for holder in holders:
                setattr(holder, name, tried)
            states.append(_states(model))
        if not near(states[0], states[1], rounding(model.dtype)):
            for holder, value in zip(holders, values, strict=True):
                setattr(holder, name, value)


def _rates(model: PreTrainedModel) -> dict[str, list[Any]]:
    """The names of all positive rates, and the modules and configurations that hold them."""
    holders: dict[int, Any] = {id(model.config): model.config}
    for module in model.modules():
        holders[id(module)] = module
        holders |= {id(value): value for value in vars(module).values() if isinstance(value, PreTrainedConfig)}
    found: dict[str, list[Any]] = {}
    for holder in holders.values():
        for name, value in vars(holder).items():
            named = RANDOM.search(name) or (name == "p" and isinstance(holder, DROPOUTS))
            if named and isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
                found.setdefault(name, []).append(holder)
    return found


def check_training_mode(model: PreTrainedModel, name: str) -> None:
    """Makes sure that training mode computes what eval mode computes, states and gradient.

    Where it does not (PhiMoE's router samples in training mode, at no rate that could be set), the modules that have no
    other use for the mode are kept in eval mode for good; where that is not enough, the model is refused.
    """
    refused = (
        f"{name!r} ({type(model).__name__}) {{}}; this model class can be a teacher or be evaluated, not be trained."
    )
    try:
        agree = _modes_agree(model)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Reformer asserts that the mode of its gradient is training mode
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(refused.format(f"cannot be tried in training mode and in eval mode ({said})")) from error
    if agree:
        return
    for module in model.modules():
        if module is not model and not hasattr(module, "gradient_checkpointing"):  # which asks for training mode
            module.train = types.MethodType(_stay_in_eval_mode, module)  # type: ignore[method-assign]
    if not _modes_agree(model):
        raise UserError(
            refused.format("computes something else in training mode than in eval mode, with every dropout off")
        )


def _stay_in_eval_mode(self: nn.Module, mode: bool = True) -> nn.Module:
    nn.Module.train(self, mode)  # the parts may differ
    self.training = False
    return self


def _modes_agree(model: PreTrainedModel) -> bool:
    training = model.training
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(0)
        evaluated, *trained = [_states(model.train(mode)) for mode in (False, True, True)]
        gradients = [_gradient(model.train(mode)) for mode in (False, True)]
    model.train(training)
    slack = rounding(model.dtype) / (8 if model.dtype.itemsize == 2 else 1)  # the same kernels ran
    apart = (gradients[1] - gradients[0]).norm() / gradients[0].norm().clamp_min(1e-30)
    return all(near(states, evaluated, slack) for states in trained) and bool(apart <= GRADIENT_SLACK)


@torch.enable_grad()
def _gradient(model: PreTrainedModel) -> Tensor:
    """Of the states, weighted at random, with respect to what the tokens' embeddings give: through every layer, and
    without the memory of the weights' gradients. [L, H]
    """
    leaves: list[Tensor] = []

    def cut(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1].clone()  # which the model may change in place

    handle = model.get_input_embeddings().register_forward_hook(cut)
    try:
        states = hidden_states(model, probe_ids(model), use_cache=False).last_hidden_state.float()
    finally:
        handle.remove()
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(0)).to(states.device)
    return torch.autograd.grad((states * weights).sum(), leaves[:1])[0][0].float()


@torch.no_grad()
def _states(model: PreTrainedModel) -> Tensor:
    ids = probe_ids(model, min(TOKENS, context_length_of(model.config)))
    return hidden_states(model, ids, use_cache=False).last_hidden_state[0]
