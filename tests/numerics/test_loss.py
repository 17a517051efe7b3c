"""The chunked loss against the written-out formula in float64: values and every gradient, for any chunk size."""

from __future__ import annotations

import dataclasses
import threading
import time

import psutil
import pytest
import torch

from harness.divergences import exact_reverse_kl, jensen_shannon, tail_forward_kl, topk_forward_kl
from harness.numerics import loss as loss_module
from harness.numerics.credit import compute_loss_terms
from harness.numerics.logprobs import IDENTITY, Head, LogitsTransform
from harness.numerics.loss import Targets, TeacherRows, head_loss
from harness.types import Divergence
from tests.numerics.conftest import NarrowProducts

N, H, V, PADDED, K = 23, 12, 301, 320, 5


def targets_for(count: int, vocab: int, divergence: Divergence = topk_forward_kl, every: int = 3) -> Targets:
    """Random coefficients of both signs; every third position has a divergence weight."""
    generator = torch.Generator().manual_seed(7)
    rows = torch.arange(0, count, every)
    draws = torch.randn(3, count, generator=generator, dtype=torch.float64)
    teacher = torch.randn(len(rows), vocab, generator=generator, dtype=torch.float64).log_softmax(-1)
    logprobs, ids = teacher.topk(K, dim=-1)
    tokens = torch.randint(vocab, (count,), generator=generator)
    tokens[0] = ids[0, 0]  # a sampled token that is also in its support
    return Targets(tokens, draws[0], draws[1], rows, draws[2][rows].abs(), divergence, ids, logprobs)


def inputs(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((N, H), (PADDED, H), (PADDED,))
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]


def headed(
    leaves: list[torch.Tensor], transform: LogitsTransform = IDENTITY, end_ids: tuple[int, ...] = ()
) -> tuple[torch.Tensor, Head]:
    return leaves[0], Head(leaves[1], leaves[2], transform, end_ids)


def written_out(
    leaves: list[torch.Tensor], t: Targets, transform: LogitsTransform = IDENTITY
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss from whole log-softmaxes in float64, and its terms."""
    hidden, weight, bias = leaves
    logits = transform.scale * (hidden.double() @ weight.double()[:V].T + bias.double()[:V])
    if transform.cap is not None:
        logits = transform.cap * torch.tanh(logits / transform.cap)
    logprobs = logits.log_softmax(-1)
    if t.dense is None:
        student, teacher = logprobs[t.support_rows].gather(-1, t.support_ids), t.teacher_logprobs
    else:
        student, teacher = logprobs[t.support_rows], (t.dense.hidden @ t.dense.head.weight.T).log_softmax(-1)
    terms = compute_loss_terms(
        logprobs[range(N), t.token_ids],
        t.policy,
        t.imitation,
        t.divergence(teacher, student),
        t.divergence_weights,
    )
    return terms.total(), torch.stack([terms.policy, terms.divergence, terms.imitation])


def gradients(loss: torch.Tensor, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(torch.autograd.grad(3 * loss, leaves))  # 3: an upstream gradient other than 1


@pytest.mark.parametrize("chunk_rows", [1, 4, 22, 23, None])
@pytest.mark.parametrize("divergence", [topk_forward_kl, tail_forward_kl])
def test_equals_the_formula_in_float64(divergence: Divergence, chunk_rows: int | None) -> None:
    leaves, targets = inputs(), targets_for(N, V, divergence)
    loss, terms = head_loss(*headed(leaves), V, targets, chunk_rows)
    truth, true_terms = written_out(leaves, targets)
    torch.testing.assert_close(loss, truth, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(terms, true_terms, rtol=1e-12, atol=1e-12)
    for found, expected in zip(gradients(loss, leaves), gradients(truth, leaves), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert found.shape == (PADDED,)
    assert not found[V:].any()  # rows beyond the shared vocabulary are in no softmax


@pytest.mark.parametrize("divergence", [exact_reverse_kl, lambda t, s: jensen_shannon(t, s, 0.5)])
def test_whole_vocabulary_from_hidden_states(divergence: Divergence) -> None:
    generator = torch.Generator().manual_seed(3)
    plain = targets_for(N, V, divergence)
    teacher = TeacherRows(
        torch.randn(len(plain.support_rows), 9, generator=generator, dtype=torch.float64),
        Head(torch.randn(V, 9, generator=generator, dtype=torch.float64)),
    )
    targets = dataclasses.replace(plain, dense=teacher)
    leaves = inputs()
    loss, _ = head_loss(*headed(leaves), V, targets, 4)
    truth, _ = written_out(leaves, targets)
    torch.testing.assert_close(loss, truth, rtol=1e-12, atol=1e-12)
    for found, expected in zip(gradients(loss, leaves), gradients(truth, leaves), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("transform", [LogitsTransform(0.25), LogitsTransform(1.0, 2.0), LogitsTransform(3.0, 0.5)])
def test_the_gradient_goes_through_scale_and_cap(transform: LogitsTransform) -> None:
    leaves, targets = inputs(), targets_for(N, V)
    loss, terms = head_loss(*headed(leaves, transform), V, targets, 4)
    truth, true_terms = written_out(leaves, targets, transform)
    torch.testing.assert_close(loss, truth, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(terms, true_terms, rtol=1e-12, atol=1e-12)
    for found, expected in zip(gradients(loss, leaves), gradients(truth, leaves), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    leaves, targets = inputs(dtype), targets_for(N, V)
    low = dataclasses.replace(
        targets,
        **{
            name: getattr(targets, name).float()
            for name in ("policy", "imitation", "divergence_weights", "teacher_logprobs")
        },
    )
    loss, _ = head_loss(*headed(leaves), V, low, 4)
    truth, _ = written_out(leaves, targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(truth.item(), rel=1e-5)
    for found, expected in zip(gradients(loss, leaves), gradients(truth, leaves), strict=True):
        assert found.dtype == dtype
        rounding = 2 * torch.finfo(dtype).eps  # of the result; the sums themselves are float32
        torch.testing.assert_close(
            found.float(), expected.float(), rtol=rounding, atol=2e-6 * float(expected.abs().max())
        )


def test_without_a_gradient_for_the_head() -> None:
    """The head is constant and has no bias; the hidden states' gradient is what it is with a head that learns."""
    hidden, weight, bias = inputs()
    targets, zero = targets_for(N, V), torch.zeros_like(bias)
    loss, terms = head_loss(hidden, Head(weight.detach()), V, targets)
    (2 * loss).backward()
    assert hidden.grad is not None and weight.grad is None and not terms.requires_grad
    truth, _ = written_out([hidden, weight, zero], targets)
    torch.testing.assert_close(hidden.grad, torch.autograd.grad(2 * truth, [hidden])[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("factor", [0.0, 1.0, 2.0])
def test_the_gradient_is_proportional_to_the_one_from_above(factor: float) -> None:
    leaves, targets = inputs(), targets_for(N, V)
    found, truth = head_loss(*headed(leaves), V, targets)[0], written_out(leaves, targets)[0]
    for grad, expected in zip(
        torch.autograd.grad(factor * found, leaves), torch.autograd.grad(factor * truth, leaves), strict=True
    ):
        torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-12)


def test_logits_that_exp_cannot_hold() -> None:
    """Logits of some thousands: e^1000 is infinite in float64, their differences are harmless."""
    leaves = [(1000 * inputs()[0]).detach().requires_grad_(), *inputs()[1:]]
    targets = targets_for(N, V)
    loss, _ = head_loss(*headed(leaves), V, targets, 4)
    truth, _ = written_out(leaves, targets)
    assert torch.isfinite(loss)
    torch.testing.assert_close(loss, truth, rtol=1e-12, atol=1e-12)
    for found, expected in zip(gradients(loss, leaves), gradients(truth, leaves), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dense", [False, True])
def test_a_chunk_is_as_large_as_its_buffers_allow(dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(loss_module, "rows_per_chunk", lambda *of: asked.append(of[:2]) or 5)
    targets = targets_for(N, V)
    if dense:
        rows = TeacherRows(torch.randn(len(targets.support_rows), 9).double(), Head(torch.randn(V, 9).double()))
        targets = dataclasses.replace(targets, dense=rows)
    head_loss(*headed(inputs()), V, targets)
    assert asked == [(V, loss_module.DENSE_BUFFERS if dense else 1)]


def test_no_positions_give_no_loss_and_no_gradient() -> None:
    hidden, weight, bias = inputs()
    whole = targets_for(N, V)
    fields = {k: v[:0] if isinstance(v, torch.Tensor) else v for k, v in vars(whole).items()}
    loss, terms = head_loss(hidden[:0], Head(weight, bias), V, Targets(**fields))
    loss.backward()
    assert loss.item() == 0 and terms.tolist() == [0, 0, 0]
    assert not weight.grad.any()


def test_gradients_at_the_full_vocabulary_equal_float64() -> None:
    """256 tokens, 151,936 ids, float32 against the plain float64 computation."""
    count, width, vocab = 256, 16, 151_936
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(count, width, generator=generator)
    weight = torch.randn(vocab, width, generator=generator) * 0.5
    plain = targets_for(count, 400, every=2)
    low = dataclasses.replace(
        plain,
        **{
            name: getattr(plain, name).float()
            for name in ("policy", "imitation", "divergence_weights", "teacher_logprobs")
        },
    )
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    loss, _ = head_loss(leaves[0], Head(leaves[1]), vocab, low)
    found = torch.autograd.grad(loss, leaves)
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
    logprobs = (doubles[0] @ doubles[1].T).log_softmax(-1)
    divergences = topk_forward_kl(plain.teacher_logprobs, logprobs[plain.support_rows].gather(-1, plain.support_ids))
    terms = compute_loss_terms(
        logprobs[range(count), plain.token_ids], plain.policy, plain.imitation, divergences, plain.divergence_weights
    )
    assert loss.item() == pytest.approx(terms.total().item(), rel=1e-5)
    for low_grad, truth in zip(found, torch.autograd.grad(terms.total(), doubles), strict=True):
        torch.testing.assert_close(low_grad.double(), truth, rtol=1e-3, atol=2e-6 * float(truth.abs().max()))


def test_memory_is_one_chunk_of_logits() -> None:
    """2,048 tokens of 32,768 ids are 256 MiB of logits; 64 MiB of them exist at a time."""
    hidden, weight = torch.randn(2048, 16), torch.randn(32768, 16)
    process, done, peak = psutil.Process(), threading.Event(), 0

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.001)

    zeros = torch.zeros(2048)
    targets = Targets(
        torch.zeros(2048).long(),
        zeros + 1,
        zeros,
        zeros[:0].long(),
        zeros[:0],
        topk_forward_kl,
        zeros[:0, None].long(),
        zeros[:0, None],
    )
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    loss, _ = head_loss(leaves[0], Head(leaves[1]), 32768, targets)
    loss.backward()
    done.set()
    watcher.join()
    assert peak - before < 120 * 2**20


def test_narrow_operands_as_a_gpu_takes_them(narrow_products: NarrowProducts) -> None:
    """The loss and its gradients of bfloat16 inputs, against float64 of the same numbers."""
    narrow = [x.detach().bfloat16().requires_grad_() for x in inputs()]
    wide = [x.detach().double().requires_grad_() for x in narrow]
    targets = targets_for(N, V)
    loss, _ = head_loss(*headed(narrow), V, targets, 4)
    truth, _ = head_loss(*headed(wide), V, targets, 4)
    assert narrow_products.calls == -(-N // 4)
    torch.testing.assert_close(loss.double(), truth, rtol=1e-5, atol=1e-5)
    for found, expected in zip(gradients(loss, narrow), gradients(truth, wide), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=2**-7, atol=1e-3)  # stored in bfloat16
