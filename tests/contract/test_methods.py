"""What every method found in baselines/ has to do; runs on a new file without an edit here."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
import torch

import harness
from harness.config.methods import find_methods
from harness.numerics.credit import compute_coefficients
from harness.types import Method, TokenBatch, TokenCredit, TokenSignal

METHODS = find_methods()
B, T, K = 4, 9, 5


def a_step(seed: int = 0, nan_padding: bool = False) -> tuple[TokenBatch, TokenSignal, TokenSignal]:
    """A ragged step with prefixes; every signal present; optionally NaN wherever no token is."""
    generator = torch.Generator().manual_seed(seed)
    position = torch.arange(T)
    lengths, prefixes = torch.tensor([9, 7, 4, 1])[:, None], torch.tensor([3, 0, 2, 0])[:, None]
    valid = position < lengths
    own, prefix = valid & (position >= prefixes), valid & (position < prefixes)
    fill = float("nan") if nan_padding else 0.0

    def table(*shape: int) -> torch.Tensor:
        values = -torch.rand(*shape, generator=generator) * 6
        mask = valid if len(shape) == 2 else valid[..., None]
        return torch.where(mask, values, fill)

    batch = TokenBatch(torch.zeros(B, T).long(), own, prefix, table(B, T), torch.rand(B, T, generator=generator))
    ids = torch.randint(50, (B, T, K), generator=generator)
    teacher, student = (
        TokenSignal(lp, ids, table(B, T, K), -table(B, T)) for lp in (table(B, T), batch.rollout_logprobs)
    )
    return batch, teacher, student


def credit_of(method: Method, progress: float, **kwargs: bool) -> tuple[TokenCredit, TokenBatch]:
    batch, teacher, student = a_step(**kwargs)
    return method.credit(batch, teacher, student, progress), batch


@pytest.fixture(params=sorted(METHODS))
def method(request: pytest.FixtureRequest) -> Method:
    return METHODS[request.param]()


@pytest.mark.parametrize("progress", [0.0, 0.37, 0.75, 1.0])
def test_credit_has_the_right_form(method: Method, progress: float) -> None:
    credit, batch = credit_of(method, progress)
    for name in ("advantages", "divergence_weights", "imitation_weights"):
        values = getattr(credit, name)
        assert values.shape == (B, T), name
        assert torch.isfinite(values).all(), name
        assert not values.requires_grad, name
    assert all(isinstance(value, int | float) for value in credit.metrics.values())
    compute_coefficients(credit, batch)


@pytest.mark.parametrize("progress", [0.0, 0.75])
def test_padding_is_never_read(method: Method, progress: float) -> None:
    clean, batch = credit_of(method, progress)
    dirty, _ = credit_of(method, progress, nan_padding=True)
    for a, b in zip(
        vars(compute_coefficients(clean, batch)).values(),
        vars(compute_coefficients(dirty, batch)).values(),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_masked_equals_compacted(method: Method) -> None:
    """Widening the padding changes no token's credit."""
    batch, teacher, student = a_step()

    def widen(record):
        wider = {
            f.name: torch.nn.functional.pad(value, (0, 0, 0, 3) if value.dim() == 3 else (0, 3))
            for f in dataclasses.fields(record)
            if (value := getattr(record, f.name)) is not None
        }
        return type(record)(**wider)

    narrow = method.credit(batch, teacher, student, 0.75)
    wide = method.credit(widen(batch), widen(teacher), widen(student), 0.75)
    for name in ("advantages", "divergence_weights", "imitation_weights"):
        mask = batch.on_policy_mask | batch.prefix_mask
        assert torch.equal(getattr(narrow, name)[mask], getattr(wide, name)[:, :T][mask]), name


def test_credit_is_a_function(method: Method) -> None:
    """Same input, same output: no hidden randomness, no state."""
    first, _ = credit_of(method, 0.5)
    second, _ = credit_of(method, 0.5)
    assert torch.equal(first.advantages, second.advantages)
    assert torch.equal(first.divergence_weights, second.divergence_weights)


def test_prefix_lengths_and_writer(method: Method) -> None:
    lengths = torch.tensor([1, 5, 30])
    for progress in (0.0, 0.5, 1.0):
        prefixes = method.prefix_lengths(progress, lengths, torch.tensor([0.0, 0.5, 0.999]))
        assert prefixes.shape == lengths.shape
        assert not prefixes.is_floating_point()
        assert (prefixes >= 0).all()
        assert (prefixes <= lengths).all()
        assert method.writer(progress, 0.5) in ("student", "teacher", "reference")
        if not method.needs_teacher_responses():
            assert not prefixes.any()


def test_is_documented(method: Method) -> None:
    documentation = inspect.getdoc(type(method)) or ""
    assert re.search(r"arXiv|20\d\d|ours", documentation), "the docstring names the source"
    assert dataclasses.is_dataclass(method)
    assert type(method).__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_no_method_is_named_in_the_harness() -> None:
    """The trainer executes credit and names no method; a new method needs no edit there."""
    allowed = {"leaderboard.py", "summary.py", "collect.py", "render.py", "rows.py"}  # differences are taken to `opd`
    for path in Path(harness.__path__[0]).rglob("*.py"):
        if path.name in allowed or "tiny" in path.parts:
            continue
        code = re.sub(r'"""[\s\S]*?"""|#.*|"[^"\n]*"', "", path.read_text())
        for name in METHODS:
            assert not re.search(rf"\b{name}\b", code), f"{path} names {name}"


@pytest.mark.parametrize("side", ["teacher", "student"])
def test_what_is_not_read_is_not_asked_for(method: Method, side: str) -> None:
    """A pass over a model is made only if a number of it is read: by the credit, or by the direct term.

    Log-probs of NaN in place of the side's own show whether it is. A student that writes its text itself is scored by
    the sampling, for nothing; elsewhere a method has to say that it reads nothing.
    """
    batch, *signals = a_step()
    asked = method.request(0.75)
    index = ("teacher", "student").index(side)
    nothing = dataclasses.replace(signals[index], logprobs=torch.full((B, T), float("nan")))
    blind = [*signals[:index], nothing, *signals[index + 1 :]]
    seen, unseen = (method.credit(batch, *given, 0.75) for given in (signals, blind))
    columns = [(getattr(seen, name), getattr(unseen, name)) for name in ("advantages", "imitation_weights")]
    columns.append((seen.divergence_weights, unseen.divergence_weights))
    reads_logprobs = not all(torch.equal(a, b) for a, b in columns)
    assert not reads_logprobs or getattr(asked, side), "its credit reads what its request leaves out"
    if side == "teacher":
        support = bool((seen.divergence_weights > 0).any())
        wanted = asked.teacher_topk or asked.teacher_entropy or asked.student_at_topk
        assert asked.teacher == (reads_logprobs or support or wanted), "the teacher scores for nobody"
    elif method.writer(0.75, 1 - 1e-6) != "student":
        assert asked.student == reads_logprobs, "the student scores for nobody"
