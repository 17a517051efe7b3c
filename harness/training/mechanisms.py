"""Settings under which a method would train without what it is made of: refused, or said, before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.config.settings import RunConfig
from harness.errors import UserError
from harness.seeds import generator_of
from harness.training.guidance import first_guided_step
from harness.types import Writer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.training.prompts import Prompt


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


def doubts(run: RunConfig) -> Iterator[str]:
    """What is allowed and hardly meant, in words."""
    setting = run.setting
    if setting.warmup_steps >= setting.steps:
        reached = setting.learning_rate * (setting.steps - 1) / setting.warmup_steps
        yield (
            f"setting.warmup_steps={setting.warmup_steps} is not less than setting.steps={setting.steps}: the learning "
            f"rate gets to {reached:g} of setting.learning_rate={setting.learning_rate:g}"
        )
    if (setting.importance_cap or 0) >= 1 and run.engine.name == "hf":
        yield "setting.importance_cap does nothing with engine=hf, which samples from the trainer's own weights"
