"""Settings under which a method would train without what it is made of: refused, or said, before the first step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.config.settings import RunConfig
from harness.errors import UserError
from harness.seeds import generator_of
from harness.training.guidance import ALMOST_ONE, first_guided_step
from harness.types import Method, TokenBatch, TokenSignal, Writer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.training.prompts import Prompt

FINE = 64  # shares of a budget, and draws, that stand for all of them


def check_guidance(run: RunConfig) -> None:
    """Refuses a method that has teacher text made of which no step would use a token, however long the text."""
    if run.method is None or not run.method.needs_teacher_responses() or "teacher" in writers_of(run):
        return
    setting = run.setting
    longest = [range(setting.max_new_tokens)]
    if first_guided_step(run.method, longest, setting.steps, setting.min_continuation) is None:
        raise UserError(
            f"method={run.method_name} would get no teacher text in any step: its schedule gives prefixes of no "
            f"length, or setting.min_continuation={setting.min_continuation} of "
            f"setting.max_new_tokens={setting.max_new_tokens} takes them; change one of them."
        )


def check_references(run: RunConfig, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> None:
    """Refuses a method that trains on the data set's responses where a prompt has none, or where they could not end."""
    if "reference" not in writers_of(run):
        return
    name = run.method_name
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"method={name} trains on the data set's responses up to their end, and the student's tokenizer has no end "
            "token; set eos_token in its tokenizer_config.json."
        )
    for prompt in prompts:
        if prompt.reference is None:
            raise UserError(
                f"method={name} trains on the data set's own responses, and prompt {prompt.prompt_id!r} of "
                f"setting.prompts={run.setting.prompts!r} has none; give each row a reference, or another method."
            )


def check_budget(run: RunConfig) -> None:
    """Refuses a budget of student tokens where the student writes none."""
    if run.setting.student_tokens is not None and run.method is not None and "student" not in writers_of(run):
        raise UserError(
            f"setting.student_tokens={run.setting.student_tokens:g}: method={run.method_name} has the student write "
            "nothing and would never spend it; give setting.operations, or leave the method out."
        )


def writers_of(run: RunConfig) -> set[Writer]:
    """Who writes the completions of this run's steps, by the draws that the trainer will make."""
    if run.method is None:
        return set()
    steps, seed = run.setting.steps, run.seed
    return {run.method.writer(k / steps, generator_of("writer", seed, k).random()) for k in range(steps)}


def doubts(run: RunConfig, vocab_size: int) -> Iterator[str]:
    """What is allowed and hardly meant, in words. `vocab_size` is of the shared vocabulary."""
    setting = run.setting
    if setting.warmup_steps >= setting.steps:
        reached = setting.learning_rate * (setting.steps - 1) / setting.warmup_steps
        yield (
            f"setting.warmup_steps={setting.warmup_steps} is not less than setting.steps={setting.steps}: the learning "
            f"rate gets to {reached:g} of setting.learning_rate={setting.learning_rate:g}"
        )
    if (setting.importance_cap or 0) >= 1 and run.engine.name == "hf" and setting.dtype != "bfloat16":
        yield (
            "setting.importance_cap does nothing with engine=hf, which samples from the trainer's own weights (but for "
            "a hybrid model, whose cache is other code)"
        )
    models = setting.identities()
    if models["student"] == models["teacher"]:
        yield "student and teacher are one model: the reward is 0 on every token, and there is nothing to learn"
    if run.method is not None:
        yield from _idle_parts(run, run.method, vocab_size)


def _idle_parts(run: RunConfig, method: Method, vocab_size: int) -> Iterator[str]:
    """What the method is made of and no step of this run has."""
    name, steps = run.method_name, run.setting.steps
    fine = [k / FINE for k in range(FINE)]
    own = [k / steps for k in {*range(0, steps, max(1, steps // FINE)), steps - 1}]
    stages = [{method.request(progress) for progress in grid} for grid in (fine, own)]
    if stages[0] - stages[1]:
        yield f"method={name} has a stage that none of setting.steps={steps} gets to"
    draws = torch.linspace(0, ALMOST_ONE, FINE).tolist()
    missed = {method.writer(progress, draw) for progress in fine for draw in draws} - writers_of(run)
    if missed:
        who = " and the ".join(sorted(missed))
        yield f"method={name} has completions by the {who}, and no step of this run draws one"
    if _is_plain_reward(method, own, vocab_size) and not _is_plain_reward(type(method)(), own, vocab_size):
        yield (
            f"method={name} gives every token its log-ratio and nothing else, as OPD does: its knobs leave nothing of "
            "its own"
        )


def _is_plain_reward(method: Method, grid: Sequence[float], vocab_size: int) -> bool:
    """Whether the credit is log π_T − log π_S on every token, and nothing else, at each share of the budget: tried on
    random log-probs from −12 nats up and entropies of all sizes that the vocabulary allows.
    """
    generator = torch.Generator().manual_seed(0)
    shape, support = (8, 64), min(8, vocab_size)

    def drawn(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(*size, generator=generator, dtype=torch.float64)

    ids = torch.arange(support).expand(*shape, support)
    teacher, student = (
        TokenSignal(
            logprobs=drawn(-12, 0, *shape),
            topk_ids=ids,
            topk_logprobs=drawn(-6, 0, *shape, support).log_softmax(-1).sort(-1, descending=True).values,
            entropy=drawn(0, math.log(vocab_size), *shape),
        )
        for _ in range(2)
    )
    written = torch.ones(shape, dtype=torch.bool)
    batch = TokenBatch(
        labels=torch.zeros(shape, dtype=torch.long),
        on_policy_mask=written,
        prefix_mask=~written,
        rollout_logprobs=student.logprobs,
        uniforms=drawn(0, 1, *shape),
    )
    reward = teacher.logprobs - student.logprobs
    try:
        with torch.no_grad():
            credits = [method.credit(batch, teacher, student, progress) for progress in grid]
    except Exception:  # a broken method says so at its first step
        return False
    return all(torch.allclose(credit.advantages, reward) and not credit.divergence_weights.any() for credit in credits)
