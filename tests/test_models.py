"""What a model must be, and what its bound forward returns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from harness.errors import UserError
from harness.models import bind_token_forward, load_model, shared_vocab_size, stop_ids_of
from harness.tiny.language import build_tokenizer


def test_bound_forward_gives_log_probs_with_gradient(random_pair: Path) -> None:
    """Against log_softmax of the plain model's logits, values and gradients, plain rows and rows with a support alike."""
    plain, bound = (load_model(str(random_pair / "student"), dtype="float64") for _ in range(2))
    bind_token_forward(bound, 64)
    ids = torch.tensor([[2, 5, 9, 4], [2, 7, 3, 0]])
    rows, tokens = torch.tensor([1, 2, 4, 5]), torch.tensor([9, 4, 7, 3])
    support_rows, support_ids = torch.tensor([1, 3]), torch.tensor([[1, 2, 3], [60, 4, 9]])
    logprobs, support = bound(ids, rows, tokens, support_rows, support_ids)
    truth = plain(ids).logits.flatten(0, 1).log_softmax(-1)[rows]
    torch.testing.assert_close(logprobs, truth[range(4), tokens], rtol=0, atol=1e-12)
    torch.testing.assert_close(support, truth[support_rows].gather(-1, support_ids), rtol=0, atol=1e-12)
    (logprobs.sum() + (support**2).sum()).backward()
    (truth[range(4), tokens].sum() + (truth[support_rows].gather(-1, support_ids) ** 2).sum()).backward()
    for (name, a), b in zip(bound.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12, msg=name)
    assert list(bound.state_dict()) == list(plain.state_dict())  # names, and so checkpoints, stay the model's own


def test_right_padding_changes_nothing(random_pair: Path) -> None:
    model = load_model(str(random_pair / "student"))
    bind_token_forward(model, 64)
    rows, tokens = torch.tensor([1, 2]), torch.tensor([9, 4])
    nothing = (torch.zeros(0, dtype=torch.long), torch.zeros(0, 3, dtype=torch.long))
    short, _ = model(torch.tensor([[2, 5, 9, 4]]), rows, tokens, *nothing)
    padded, empty = model(torch.tensor([[2, 5, 9, 4, 0, 0, 0]]), rows, tokens, *nothing)
    torch.testing.assert_close(short, padded, rtol=0, atol=1e-6)
    assert empty.shape == (0, 3)


def test_a_transformed_head_is_refused(tmp_path: Path) -> None:
    """Gemma 2 caps its logits: log-probs from hidden states would be silently wrong."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=1.0,
        initializer_range=1.0,
    )
    Gemma2ForCausalLM(config).save_pretrained(tmp_path / "gemma")
    with pytest.raises(UserError, match="soft cap"):
        load_model(str(tmp_path / "gemma"))


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
