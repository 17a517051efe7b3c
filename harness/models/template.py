"""Chat templates: what a conversation looks like as the text that a model goes on with."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, tzinfo
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from harness.errors import UserError
from harness.models.private_names import TEMPLATE_CLOCK

FIXED_DATE = datetime(2024, 7, 26)  # what templates that write today's date get; Llama 3's own without a clock
PROBE = ({"role": "user", "content": "What is 1 + 1?"},)  # that two templates are compared on
SHOWN = 40  # characters of a rendering on either side of a difference


def render(
    tokenizer: PreTrainedTokenizerBase, conversation: Sequence[dict[str, Any]], variables: Mapping[str, Any]
) -> str:
    """The conversation and the header of an answer. UserError with the template's own message where it refuses."""
    given: dict[str, Any] = {"add_generation_prompt": True, **variables}
    try:
        with stopped_clock(), without_chance():
            return str(tokenizer.apply_chat_template(list(conversation), tokenize=False, **given))
    except Exception as error:  # a template is a program, and may fail in any way
        raise UserError(f"the chat template cannot render it: {' '.join(str(error).split())}") from error


class _Stopped(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return FIXED_DATE


@contextmanager
def stopped_clock() -> Iterator[None]:
    """Stops the clock of a template that looks at it (`strftime_now`): runs of one table may start on different days.

    A variable of that name would do for transformers 5.19; from 5.24 on variables are plain data.
    """
    running = TEMPLATE_CLOCK.get()
    TEMPLATE_CLOCK.put(chat_template_utils, _Stopped)
    try:
        yield
    finally:
        TEMPLATE_CLOCK.put(chat_template_utils, running)


@contextmanager
def without_chance() -> Iterator[None]:
    """A template that draws (Jinja's `random`, `lipsum`) draws the same every time, for the same reason."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


def check_template(tokenizer: PreTrainedTokenizerBase, variables: Mapping[str, Any]) -> None:
    """UserError without a template, for one that leaves the question out, or for a variable that it does not know."""
    template = tokenizer.chat_template
    if template is None:
        raise UserError("the student's tokenizer has no chat template, which prompts are rendered by; add one to it.")
    reserved = set(inspect.signature(tokenizer.apply_chat_template).parameters) - {"kwargs"}
    for name in variables:
        if name in reserved:
            raise UserError(f"setting.chat_template_kwargs.{name} is set by the harness; leave it out.")
        if not re.search(rf"\b{re.escape(name)}\b", str(template)):
            raise UserError(
                f"setting.chat_template_kwargs.{name}: the student's chat template has no variable of this name, it "
                "would change nothing; correct it or leave it out."
            )
    check_question(tokenizer, variables)


def check_question(tokenizer: PreTrainedTokenizerBase, variables: Mapping[str, Any]) -> None:
    """UserError for a template that leaves the question out, so that all prompts would be alike."""
    try:
        shown = render(tokenizer, PROBE, variables)
    except UserError:  # it may want other turns than these; the prompts themselves tell
        return
    if PROBE[0]["content"] not in shown:
        raise UserError(
            f"the chat template of {tokenizer.name_or_path!r} leaves the question out: of {PROBE[0]['content']!r} it "
            f"makes {shown[: 2 * SHOWN]!r}; correct the template."
        )


def template_difference(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, variables: Mapping[str, Any]
) -> str:
    """In words, where the teacher's own rendering of a question leaves the student's; empty if it does not."""
    if student.chat_template == teacher.chat_template:
        return ""
    if teacher.chat_template is None:
        return "the teacher has no chat template"
    ours = render(student, PROBE, variables)
    try:
        theirs = render(teacher, PROBE, variables)
    except UserError as error:
        return f"of the teacher {error}"
    if ours == theirs:
        return ""
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    shown = [repr(text[max(0, at - SHOWN) : at + SHOWN]) for text in (ours, theirs)]
    return f"at character {at} the student's has {shown[0]}, the teacher's {shown[1]}"
