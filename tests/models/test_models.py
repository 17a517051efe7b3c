"""What a model must be, and what its bound forward returns."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    DeepseekV32Config,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    StableLmConfig,
    StableLmForCausalLM,
)

from harness.errors import UserError
from harness.models.backbone import cache_name, check_causal
from harness.models.head import bind_token_forward
from harness.models.loading import load_model, stop_ids_of
from harness.models.pair import shared_vocab_size
from harness.models.transform import transform_of
from harness.numerics.logprobs import LogitsTransform
from harness.tiny.language import build_tokenizer
from tests.models.architectures import config_of


def targets(tokens: list[int], support_rows: list[int], support_ids: list[list[int]]) -> dict[str, Any]:
    """Targets with advantage 1 everywhere, and a divergence of weight 1 whose value is −Σ (log
    π_S)² over the support.
    """
    ones = torch.ones(len(tokens), dtype=torch.float64)
    ids = torch.tensor(support_ids, dtype=torch.long).reshape(len(support_rows), 3 if support_rows else 0)
    return {
        "token_ids": torch.tensor(tokens),
        "policy": ones,
        "imitation": 0 * ones,
        "support_rows": torch.tensor(support_rows, dtype=torch.long),
        "divergence_weights": ones[: len(support_rows)],
        "divergence": lambda teacher, student: -(student**2).sum(-1),
        "support_ids": ids,
        "teacher_logprobs": torch.zeros(ids.shape, dtype=torch.float64),
    }


def test_bound_forward_gives_the_loss_with_gradient(random_pair: Path) -> None:
    """Against log_softmax of the plain model's logits, values and gradients."""
    plain, bound = (load_model(str(random_pair / "student"), dtype="float64") for _ in range(2))
    bind_token_forward(bound, 64)
    ids = torch.tensor([[2, 5, 9, 4], [2, 7, 3, 0]])
    rows, tokens = torch.tensor([1, 2, 4, 5]), [9, 4, 7, 3]
    given = targets(tokens, [1, 3], [[1, 2, 3], [60, 4, 9]])
    loss, terms = bound(ids, rows, **given)
    truth = plain(ids).logits.flatten(0, 1).log_softmax(-1)[rows]
    support = truth[given["support_rows"]].gather(-1, given["support_ids"])
    expected = torch.stack([-truth[range(4), tokens].sum(), -(support**2).sum(), truth.new_zeros(())])
    torch.testing.assert_close(terms, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(loss, expected.sum(), rtol=0, atol=1e-12)
    loss.backward()
    expected.sum().backward()
    for (name, a), b in zip(bound.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12, msg=name)
    assert list(bound.state_dict()) == list(plain.state_dict())  # names, and so checkpoints, stay the model's own


def test_right_padding_changes_nothing(random_pair: Path) -> None:
    model = load_model(str(random_pair / "student"), dtype="float64")
    bind_token_forward(model, 64)
    rows, given = torch.tensor([1, 2]), targets([9, 4], [], [])
    short, _ = model(torch.tensor([[2, 5, 9, 4]]), rows, **given)
    padded, terms = model(torch.tensor([[2, 5, 9, 4, 0, 0, 0]]), rows, **given)
    torch.testing.assert_close(short, padded, rtol=0, atol=1e-12)
    assert terms[1:].tolist() == [0, 0]


class Shifted(Gemma2ForCausalLM):
    """Adds a number that differs from token to token: neither a scale nor a cap."""

    def forward(self, **inputs: Any) -> Any:
        output = super().forward(**inputs)
        output.logits = output.logits + torch.arange(64.0)
        return output


def gemma(kind: type[Gemma2ForCausalLM], cap: float | None, spread: float = 0.02) -> Gemma2ForCausalLM:
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=cap,
        initializer_range=spread,
    )
    return kind(config).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("cap", [30.0, None])
def test_a_cap_is_found_however_small_the_logits(cap: float | None, dtype: torch.dtype) -> None:
    """Logits near 0.01 are moved by a cap of 30 by a part in 10^8: the logits themselves would not tell."""
    assert transform_of(gemma(Gemma2ForCausalLM, cap).to(dtype)) == LogitsTransform(1.0, cap)


@pytest.mark.parametrize("scale", [0.0625, 1 / 6, 3.0])
def test_a_scale_is_read_exactly(scale: float) -> None:
    config = CohereConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        logit_scale=scale,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    assert transform_of(CohereForCausalLM(config).eval()) == LogitsTransform(scale)


def test_another_transformation_is_refused() -> None:
    with pytest.raises(UserError, match="in another way"):
        transform_of(gemma(Shifted, None))


def test_a_configuration_that_cannot_be_run_is_one_sentence() -> None:
    """StableLM turns a quarter of each head: of 12 widths, 3, which do not come in pairs."""
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = StableLmForCausalLM(StableLmConfig(vocab_size=64, num_key_value_heads=2, **sizes)).eval()
    with pytest.raises(UserError, match=r"by which it cannot be run .*RuntimeError"):
        transform_of(model)


@pytest.mark.parametrize("shift", [0, -60, -140, -180])
def test_large_logits_of_a_right_head_are_accepted_in_half_types(shift: float) -> None:
    """GPT-2's logits lie near -100: a fixed tolerance would be below the rounding of bfloat16 there."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2, initializer_range=0.3)).eval()
    with torch.no_grad():
        direction = torch.nn.functional.normalize(torch.ones(32), dim=0)
        model.lm_head.weight.add_(direction)
        model.transformer.ln_f.bias.add_(shift * direction)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert transform_of(copy.deepcopy(model).to(dtype)) == LogitsTransform()


def test_the_future_is_not_seen() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2)).eval()
    check_causal(model, "gpt2")
    forward = model.transformer.forward
    model.transformer.forward = lambda **inputs: _averaged(forward(**inputs))
    with pytest.raises(UserError, match="not causal"):
        check_causal(model, "gpt2")


def test_the_future_that_is_seen_late_is_found() -> None:
    """DeepSeek's sparse attention keeps the 8 best tokens; with 2 heads many are equally good, and which of them are
    kept depends on how long the text is. With 32 heads none are.
    """
    fields = config_of("deepseek_v32").to_dict()
    torch.manual_seed(0)
    check_causal(AutoModelForCausalLM.from_config(DeepseekV32Config(**fields)).eval(), "many heads")
    few = AutoModelForCausalLM.from_config(DeepseekV32Config(**{**fields, "index_n_heads": 2})).eval()
    with pytest.raises(UserError, match="not causal"):
        check_causal(few, "two heads")


def _averaged(output: Any) -> Any:
    output.last_hidden_state = output.last_hidden_state + output.last_hidden_state.mean(1, keepdim=True)
    return output


def test_heads_of_different_size_share_the_smaller(random_pair: Path) -> None:
    tokenizer, config = build_tokenizer(), load_model(str(random_pair / "student")).config
    larger = type(config)(**{**config.to_dict(), "vocab_size": 80})
    assert shared_vocab_size((tokenizer, larger), (tokenizer, config), 8) == 64
    with pytest.raises(UserError, match="top_k=65"):
        shared_vocab_size((tokenizer, larger), (tokenizer, config), 65)


def test_end_tokens_come_from_both_places(random_pair: Path) -> None:
    model = load_model(str(random_pair / "student"))
    model.generation_config.eos_token_id = [1, 5]
    assert stop_ids_of(model, build_tokenizer()) == (1, 5)


def test_the_cache_goes_by_the_name_that_the_class_takes() -> None:
    """transformers renames it: a class of either kind gets its own name, and what it returns is read by the same."""

    class Old(torch.nn.Module):
        def forward(self, input_ids, past_key_values=None): ...

    class New(torch.nn.Module):
        def forward(self, input_ids, cache=None, **kwargs): ...

    assert cache_name(Old()) == "past_key_values" and cache_name(New()) == "cache"
