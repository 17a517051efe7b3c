"""Chunked log-probs against log_softmax in float64; chunking and precision change nothing that matters. Gradients:
test_loss.py.
"""

from types import SimpleNamespace

import pytest
import torch

from harness.numerics import logprobs as module
from harness.numerics.logprobs import Head, LogitsTransform, Projection, head_blocks, project, rows_per_chunk
from tests.numerics.conftest import NarrowProducts

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


def test_products_of_bfloat16_numbers_are_exact_and_summed_in_float32() -> None:
    """Sizes at which a CPU takes its bfloat16 instructions. Logits of up to some 30 would be off by 0.06 if they were
    rounded to bfloat16, and by 0.01 if states that are no bfloat16 numbers were. The library's setting stays as it was.
    """
    generator = torch.Generator().manual_seed(0)
    states = 8 * torch.randn(32, 896, generator=generator)
    weight = (0.02 * torch.randn(8192, 896, generator=generator)).bfloat16()
    before = torch.get_float32_matmul_precision()
    for hidden in (states.bfloat16(), states):
        found = module.own_logits(hidden, Head(weight))
        torch.testing.assert_close(found.double(), hidden.double() @ weight.double().T, rtol=0, atol=5e-5)
    assert torch.get_float32_matmul_precision() == before


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


def test_what_was_not_asked_for_is_not_computed_and_nothing_has_a_gradient() -> None:
    hidden, weight, bias, ids = _inputs(torch.float64)
    found = project(hidden.requires_grad_(), Head(weight.requires_grad_(), bias), ids)
    assert found == Projection(found.logprobs) and not found.logprobs.requires_grad


def test_no_positions() -> None:
    found = project(torch.zeros(0, 2), Head(torch.zeros(3, 2)), torch.zeros(0, 4).long(), top_k=2, entropy=True)
    assert (found.logprobs.shape, found.topk_ids.shape, found.entropy.shape) == ((0, 4), (0, 2), (0,))


@pytest.mark.parametrize("entropy", [False, True])
def test_logits_that_exp_cannot_hold(entropy: bool) -> None:
    """Logits 2000, 1999 and -3000: log-probs -log(1 + e^-1), that less 1, and less 5000."""
    weight = torch.tensor([[2000.0], [1999.0], [-3000.0]], dtype=torch.float64)
    found = project(torch.ones(1, 1).double(), Head(weight), torch.tensor([[0, 1, 2]]), entropy=entropy)
    first = -torch.tensor(-1.0).double().exp().log1p()
    torch.testing.assert_close(found.logprobs, torch.stack([first, first - 1, first - 5000])[None], rtol=1e-12, atol=0)


def test_positions_per_chunk() -> None:
    """2^26 bytes of float32 rows: 110 rows of 151,936 ids (66,846,720 of 67,108,864 bytes), half as many with two
    buffers; one at least.
    """
    assert (rows_per_chunk(151_936), rows_per_chunk(151_936, 2), rows_per_chunk(2**24), rows_per_chunk(2**25)) == (
        110,
        55,
        1,
        1,
    )


@pytest.mark.parametrize("entropy", [False, True])
def test_the_entropy_needs_a_second_buffer(entropy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(module, "rows_per_chunk", lambda vocab, buffers, _: asked.append((vocab, buffers)) or 5)
    hidden, weight, _, ids = _inputs(torch.float64)
    project(hidden, Head(weight), ids, entropy=entropy)
    assert asked == [(V, 2 if entropy else 1)]


@pytest.mark.parametrize(("block_bytes", "sizes"), [(48, [3, 3, 3, 1]), (1, [1] * 10), (10**6, [10])])
def test_a_head_of_another_type_is_converted_in_blocks(
    block_bytes: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten rows of four float32 values, 16 bytes a row: three rows in 48 bytes."""
    monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    weight = torch.arange(40.0).reshape(10, 4)
    blocks = list(head_blocks(weight.bfloat16(), torch.float32))
    assert [len(part) for _, part in blocks] == sizes
    assert torch.equal(torch.cat([part for _, part in blocks]), weight)
    assert all(torch.equal(weight[rows], part) for rows, part in blocks)
    ((rows, same),) = head_blocks(weight, torch.float32)
    assert rows == slice(0, 10) and same.data_ptr() == weight.data_ptr()


@pytest.mark.parametrize("entropy", [False, True])
def test_narrow_operands_as_a_gpu_takes_them(narrow_products: NarrowProducts, entropy: bool) -> None:
    """The head is multiplied as it is; against float64, the error is that of float32."""
    hidden, weight, bias, ids = (x.bfloat16() if x.is_floating_point() else x for x in _inputs(torch.float64))
    found = project(hidden, Head(weight, bias), ids, top_k=3, entropy=entropy, chunk_rows=4)
    assert narrow_products.calls == -(-len(hidden) // 4)
    truth = project(hidden.double(), Head(weight.double(), bias.double()), ids, top_k=3, entropy=entropy)
    for name, value in vars(truth).items():
        if value is not None:
            torch.testing.assert_close(vars(found)[name].double(), value.double(), rtol=0, atol=2e-6)
    project(hidden.float(), Head(weight.float(), bias.float()), ids)
    project(hidden.float(), Head(weight, bias), ids)  # of unequal types: widened
    assert narrow_products.calls == -(-len(hidden) // 4)


def test_a_cpu_has_no_such_product() -> None:
    assert not module.has_wide_products("cpu", torch.bfloat16)


@pytest.mark.parametrize(
    ("card_gib", "buffers", "rows"),
    [
        (80, 1, 2048),  # 5 GiB would hold 8,834
        (24, 1, 2048),  # 1.5 GiB would hold 2,650
        (16, 1, 1766),  # 1 GiB
        (80, 8, 1104),  # whole distributions of both models
        (0.5, 1, 110),  # never fewer than on a CPU
    ],
)
def test_positions_per_chunk_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, card_gib: float, buffers: int, rows: int
) -> None:
    """2,048 of 151,936 ids, within a 16th of the card."""
    card = SimpleNamespace(total_memory=int(card_gib * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    assert rows_per_chunk(151_936, buffers, torch.device("cuda", 0)) == rows
