"""Several end tokens as one event: log-probs, entropy, top k and every gradient against enumeration in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from harness.divergences import exact_reverse_kl, jensen_shannon, topk_forward_kl
from harness.numerics.credit import compute_loss_terms
from harness.numerics.logprobs import IDENTITY, Head, LogitsTransform, project
from harness.numerics.loss import Targets, TeacherRows, head_loss
from harness.types import Divergence

N, H, V, PADDED = 11, 5, 9, 12
ENDS = (6, 2, 7)  # the first is not the smallest
OTHERS = (0, 1, 3, 4, 5, 8)
EVENTS = [*OTHERS, 6]  # what can happen, by the id that stands for it
TRANSFORMS = [IDENTITY, LogitsTransform(0.25), LogitsTransform(1.5, 2.0)]


def leaves(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((N, H), (PADDED, H), (PADDED,))
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]


def events(hidden: torch.Tensor, head: Head) -> torch.Tensor:
    """[N, 7] log-probs of EVENTS: probabilities by a plain softmax, those of the end tokens added up."""
    logits = head.transform.scale * (hidden @ head.weight[:V].T + (0 if head.bias is None else head.bias[:V]))
    if head.transform.cap is not None:
        logits = head.transform.cap * torch.tanh(logits / head.transform.cap)
    probabilities = logits.softmax(-1)
    return torch.cat([probabilities[:, OTHERS], probabilities[:, ENDS].sum(-1, keepdim=True)], dim=-1).log()


def head_of(given: list[torch.Tensor], transform: LogitsTransform, end_ids: tuple[int, ...] = ENDS) -> Head:
    return Head(given[1][:V], given[2][:V], transform, end_ids)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("chunk_rows", [1, 4, None])
def test_a_projection_is_of_events(transform: LogitsTransform, chunk_rows: int | None) -> None:
    given = [leaf.detach() for leaf in leaves()]
    head, truth = head_of(given, transform), events(given[0], head_of(given, transform))
    every = torch.arange(V).expand(N, V)
    found = project(given[0], head, every, top_k=len(EVENTS), entropy=True, chunk_rows=chunk_rows)
    torch.testing.assert_close(found.logprobs[:, EVENTS], truth, rtol=0, atol=1e-12)
    assert torch.isfinite(found.logprobs).all() and not found.logprobs[:, [2, 7]].exp().any()
    torch.testing.assert_close(found.entropy, -(truth.exp() * truth).sum(-1), rtol=0, atol=1e-12)
    ordered = truth.sort(-1, descending=True)
    assert torch.equal(found.topk_ids, torch.tensor(EVENTS)[ordered.indices])
    torch.testing.assert_close(found.topk_logprobs, ordered.values, rtol=0, atol=1e-12)


def targets(divergence: Divergence, dense: TeacherRows | None = None) -> Targets:
    """Every event is a sampled token, the end twice; the support of two of three rows has the end in it."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.tensor([*EVENTS, 6, 0, 6, 3])
    draws = torch.randn(3, N, generator=generator, dtype=torch.float64)
    rows = torch.tensor([0, 6, 9])
    ids = torch.tensor([[6, 0, 3], [1, 6, 5], [4, 8, 0]])
    teacher = torch.randn(3, 3, generator=generator, dtype=torch.float64).log_softmax(-1)
    return Targets(tokens, draws[0], draws[1], rows, draws[2][rows].abs(), divergence, ids, teacher, dense)


def places(ids: torch.Tensor) -> torch.Tensor:
    return torch.tensor([EVENTS.index(i) for i in ids.flatten().tolist()]).reshape(ids.shape)


def assert_truth(
    given: list[torch.Tensor], transform: LogitsTransform, t: Targets, teacher: torch.Tensor | None = None
) -> None:
    """Value, terms and gradients of the loss against autograd through the events."""
    loss, terms = head_loss(given[0], Head(given[1], given[2], transform, ENDS), V, t, 4)
    logprobs = events(given[0], Head(given[1], given[2], transform))
    student = logprobs[t.support_rows]
    divergences = (
        t.divergence(t.teacher_logprobs, student.gather(-1, places(t.support_ids)))
        if teacher is None
        else t.divergence(teacher, student)
    )
    picked = logprobs[range(N), places(t.token_ids)]
    true_terms = compute_loss_terms(picked, t.policy, t.imitation, divergences, t.divergence_weights)
    torch.testing.assert_close(loss, true_terms.total(), rtol=1e-12, atol=1e-12)
    expected_terms = torch.stack([true_terms.policy, true_terms.divergence, true_terms.imitation])
    torch.testing.assert_close(terms, expected_terms, rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad(3 * loss, given)
    for grad, expected in zip(found, torch.autograd.grad(3 * true_terms.total(), given), strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-12)
    assert found[2][list(ENDS)].abs().min() > 1e-3  # every one of them learns


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_gradient_reaches_every_end_token(transform: LogitsTransform) -> None:
    assert_truth(leaves(), transform, targets(topk_forward_kl))


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("divergence", [exact_reverse_kl, lambda t, s: jensen_shannon(t, s, 0.5)])
def test_whole_distributions_are_of_events_on_both_sides(divergence: Divergence, transform: LogitsTransform) -> None:
    generator = torch.Generator().manual_seed(3)
    states, weight = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (3, V))
    dense = TeacherRows(states, Head(weight, end_ids=ENDS))
    assert_truth(leaves(), transform, targets(divergence, dense), events(states, Head(weight)))


@pytest.mark.parametrize("end_ids", [(), (6,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_end_token_changes_no_bit(end_ids: tuple[int, ...], dtype: torch.dtype) -> None:
    given, plain = leaves(dtype), leaves(dtype)
    halves = {"policy", "imitation", "divergence_weights", "teacher_logprobs"}
    whole = targets(topk_forward_kl)
    low = dataclasses.replace(whole, **{name: getattr(whole, name).float() for name in halves})
    found, _ = head_loss(given[0], Head(given[1], given[2], IDENTITY, end_ids), V, low)
    expected, _ = head_loss(plain[0], Head(plain[1], plain[2]), V, low)
    assert torch.equal(found, expected)
    for a, b in zip(torch.autograd.grad(found, given), torch.autograd.grad(expected, plain), strict=True):
        assert torch.equal(a, b)
    states, every = given[0].detach(), torch.arange(V).expand(N, V)
    sides = [head_of([leaf.detach() for leaf in given], IDENTITY, ends) for ends in (end_ids, ())]
    a, b = (project(states, head, every, top_k=3, entropy=True) for head in sides)
    assert all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))
