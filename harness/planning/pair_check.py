"""What a person who brought a pair of models should see before it is trained: what the two make of each other, one
prompt as they see it, and what was left at the paper's values with what it costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from harness.config.settings import RunConfig, Setting
from harness.engines.checks import device_of
from harness.errors import UserError
from harness.files import ROOT, locate
from harness.models.contexts import context_length_of
from harness.models.loading import load_config, load_tokenizer
from harness.models.pair import ends_line
from harness.models.template import render, template_difference
from harness.planning.estimate import make_plan
from harness.planning.hardware import load_hardware
from harness.planning.micro_batches import with_micro_batches
from harness.training.conversations import example_of
from harness.training.rows import read_rows

# of setting=custom: what a first try must choose -> a size that takes minutes of a small model
FIRST_TRY = {"steps": 20, "max_new_tokens": 256, "prompts_per_step": 8}
SHOWN_CHARACTERS = 300  # of a prompt
CARDS = {"H100": "h100_x1", "H200": "h100_x1", "4090": "rtx4090_x1"}  # of a card's name -> a file of conf/hardware/
UNBOUNDED = 2**31  # of a context: the model does not say


def is_custom(arguments: Sequence[str]) -> bool:
    """Whether a command line brings its own models."""
    return "setting=custom" in arguments


def pair_lines(run: RunConfig, arguments: Sequence[str]) -> list[str]:
    """What is said of a comparison before it trains: everything of a brought pair, the end tokens alone of the shipped
    tiny ones.
    """
    setting, custom = run.setting, is_custom(arguments)
    shipped = all((ROOT / "harness") in Path(locate(name)).resolve().parents for name in models_of(setting))
    if shipped and not custom:
        return [ends_line(setting)]
    return [*pair_check(setting), *([line] if custom and (line := left_line(run, arguments)) else [])]


def models_of(setting: Setting) -> tuple[str, str]:
    """Student and teacher."""
    return setting.student, setting.teacher


def pair_check(setting: Setting) -> list[str]:
    """Tokenizer, ends, template, contexts and the first prompt, a line each; the pair has passed the checks."""
    sides = ((setting.student, setting.student_revision), (setting.teacher, setting.teacher_revision))
    student, teacher = (load_tokenizer(*side) for side in sides)
    contexts = [context_length_of(load_config(*side)) for side in sides]
    said = [f"{context:,}" if context < UNBOUNDED else "no limit" for context in contexts]
    variables = setting.chat_template_kwargs or {}
    differs = template_difference(student, teacher, variables)
    place, row = next(iter(read_rows(setting.prompts, setting.prompts_split)))
    text = render(student, example_of(row, place).conversation, variables)
    cut = f" (the first {SHOWN_CHARACTERS} of {len(text):,} characters)" if len(text) > SHOWN_CHARACTERS else ""
    return [
        f"Pair: {setting.student} taught by {setting.teacher}; one tokenizer, {len(student.get_vocab()):,} tokens",
        ends_line(setting),
        f"Chat template: the student's, for both; the teacher's own writes {'other text' if differs else 'the same'}",
        f"Contexts: student {said[0]}, teacher {said[1]} positions; a prompt has at most "
        f"{setting.max_prompt_tokens:,}, a completion {setting.max_new_tokens:,}",
        f"First prompt, as the models see it{cut}: {text[:SHOWN_CHARACTERS]!r}",
    ]


def left_line(run: RunConfig, arguments: Sequence[str]) -> str:
    """What the command line left at the paper's values, and what a run of that costs; empty if it chose all."""
    setting = run.setting
    given = {argument.lstrip("+").partition("=")[0] for argument in arguments}
    left = [key for key in FIRST_TRY if f"setting.{key}" not in given]
    if not left:
        return ""
    step = setting.prompts_per_step * setting.samples_per_prompt * setting.max_new_tokens
    values = ", ".join(f"setting.{key}={getattr(setting, key)}" for key in left)
    smaller = " ".join(f"setting.{key}={FIRST_TRY[key]}" for key in left)
    return (
        f"Left at the paper's values: {values}. A run writes at most {step * setting.steps:,} tokens ({step:,} a "
        f"step){_time(run)}. A first try: {smaller}"
    )


def _time(run: RunConfig) -> str:
    """`, in at most some 40.0 h by the estimate of harness.plan`; empty without figures of this machine."""
    device = device_of(run)
    card = "" if device == "cpu" else torch.cuda.get_device_name(device)
    known = [file for name, file in CARDS.items() if name in card] if card else ["cpu_core"]
    if not known:
        return ", for how long the live view says after the first steps"
    (fitted,) = with_micro_batches([run], run.engine.micro_batch_prompts or 1)
    try:
        seconds = make_plan(fitted, load_hardware(known[0])).seconds.total * run.setting.steps
    except UserError:  # the size of a model that is not here yet
        return ""
    return f", in at most some {seconds / 3600:,.1f} h by the estimate of harness.plan ({known[0]})"
