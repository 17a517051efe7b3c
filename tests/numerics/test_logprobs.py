"""Chunked log-probs against log_softmax in float64; chunking and precision change nothing that matters. Gradients: test_loss.py."""

import pytest
import torch

from harness.numerics.logprobs import Head, LogitsTransform, project

N, H, V = 37, 24, 501


def _inputs(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, H, generator=generator, dtype=torch.float64)
    weight = torch.randn(V, H, generator=generator, dtype=torch.float64)
    bias = torch.randn(V, generator=generator, dtype=torch.float64)
    ids = torch.randint(V, (N, 3), generator=generator)
    return hidden.to(dtype), weight.to(dtype), bias.to(dtype), ids


@pytest.mark.parametrize("chunk_rows", [1, 5, 36, 37, None])
def test_equals_log_softmax_in_float64(chunk_rows: int | None) -> None:
    hidden, weight, bias, ids = _inputs(torch.float64)
    truth = (hidden @ weight.T + bias).log_softmax(-1)
    found = project(hidden, Head(weight, bias), ids, top_k=7, entropy=True, chunk_rows=chunk_rows)
    torch.testing.assert_close(found.logprobs, truth.gather(-1, ids), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.entropy, -(truth.exp() * truth).sum(-1), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.topk_logprobs, truth.topk(7, dim=-1).values, rtol=0, atol=1e-12)
    assert found.topk_ids is not None
    torch.testing.assert_close(truth.gather(-1, found.topk_ids), found.topk_logprobs, rtol=0, atol=1e-12)


def test_float32_is_as_good_as_torch() -> None:
    hidden, weight, bias, ids = _inputs(torch.float64)
    truth = (hidden @ weight.T + bias).log_softmax(-1).gather(-1, ids)
    low = [x.float() for x in (hidden, weight, bias)]
    plain_error = ((low[0] @ low[1].T + low[2]).log_softmax(-1).gather(-1, ids) - truth).abs().max()
    error = (project(low[0], Head(low[1], low[2]), ids).logprobs - truth).abs().max()
    assert error <= 2 * plain_error
    assert error < 2e-5


def test_bfloat16_weights_are_computed_in_float32() -> None:
    hidden, weight, _, ids = _inputs(torch.bfloat16)
    found = project(hidden, Head(weight), ids).logprobs
    truth = (hidden.double() @ weight.double().T).log_softmax(-1).gather(-1, ids)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), truth, rtol=0, atol=2e-5)


def test_entropy_survives_impossible_tokens() -> None:
    bias = torch.tensor([0.0, 0.0, float("-inf")])
    found = project(torch.zeros(1, 2), Head(torch.zeros(3, 2), bias), torch.tensor([[0]]), entropy=True)
    torch.testing.assert_close(found.entropy, torch.tensor([2.0]).log())


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="hidden"):
        project(torch.zeros(2, 3), Head(torch.zeros(5, 3)), torch.zeros(3, 1, dtype=torch.long))


@pytest.mark.parametrize("transform", [LogitsTransform(0.25), LogitsTransform(1.0, 2.0), LogitsTransform(3.0, 0.5)])
def test_a_scale_and_a_cap_in_float64(transform: LogitsTransform) -> None:
    hidden, weight, bias, ids = _inputs(torch.float64)
    scaled = transform.scale * (hidden @ weight.T + bias)
    logits = scaled if transform.cap is None else transform.cap * torch.tanh(scaled / transform.cap)
    found = project(hidden, Head(weight, bias, transform), ids, chunk_rows=5)
    torch.testing.assert_close(found.logprobs, logits.log_softmax(-1).gather(-1, ids), rtol=0, atol=1e-12)
