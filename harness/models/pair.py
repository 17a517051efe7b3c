"""Student and teacher as a pair: do they speak the same tokens, and are both long enough?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import (
    PreTrainedTokenizerBase,
)

from harness.config.settings import RunConfig
from harness.errors import UserError
from harness.models.contexts import context_length_of
from harness.models.loading import load_config, load_tokenizer


def check_pair(config: RunConfig) -> int:
    """The shared vocabulary's size; reads tokenizers and configurations only."""
    setting = config.setting
    sides = [(setting.student, setting.student_revision), (setting.teacher, setting.teacher_revision)]
    student, teacher = [(load_tokenizer(*side), load_config(*side)) for side in sides]
    return shared_vocab_size(student, teacher, setting.top_k)


def shared_vocab_size(
    student: tuple[PreTrainedTokenizerBase, Any], teacher: tuple[PreTrainedTokenizerBase, Any], top_k: int
) -> int:
    """Checks that two (tokenizer, config) pairs speak the same tokens; both heads are sliced to this many rows before the softmax.

    Heads may be padded to different sizes (151,936 against 152,064 in the Qwen2.5 family); ids must mean the same text.
    """
    maps = [tokenizer.get_vocab() for tokenizer, _ in (student, teacher)]
    if maps[0] != maps[1]:
        raise UserError(
            f"the tokenizers of student and teacher differ: {_first_difference(*maps)}. Use a pair that shares its tokenizer."
        )
    for name in ("eos_token_id", "bos_token_id"):
        ids = [getattr(tokenizer, name) for tokenizer, _ in (student, teacher)]
        if ids[0] != ids[1]:
            raise UserError(f"the tokenizers differ: {name} is {ids[0]} for the student and {ids[1]} for the teacher.")
    for side, (tokenizer, config) in {"student": student, "teacher": teacher}.items():
        check_head(tokenizer, config, f"the {side}")
    size = min(config.get_text_config().vocab_size for _, config in (student, teacher))
    if top_k > size:
        raise UserError(
            f"setting.top_k={top_k} is larger than the shared vocabulary of {size} tokens; give a smaller one."
        )
    return size


def check_head(tokenizer: PreTrainedTokenizerBase, config: Any, name: str) -> None:
    """UserError if the tokenizer writes ids that the model has no row for."""
    rows, needed = config.get_text_config().vocab_size, max(tokenizer.get_vocab().values()) + 1
    if needed > rows:
        raise UserError(
            f"{name} has a head of {rows} rows, its tokenizer writes ids up to {needed - 1}; give the tokenizer that the model was made "
            "with, or resize its embeddings and save it."
        )


def check_contexts(config: RunConfig, prompts: Mapping[str, int], longest_reference: int = 0) -> None:
    """UserError if a prompt leaves the student no room, or if the teacher would score positions that it was not made for.

    Args: prompts: the number of tokens of each prompt, by id; longest_reference: likewise of the longest prompt with its reference, if
    the method trains on references.
    """
    setting = config.setting
    student, teacher = (
        context_length_of(load_config(*side))
        for side in ((setting.student, setting.student_revision), (setting.teacher, setting.teacher_revision))
    )
    longest = max(prompts, key=lambda prompt_id: prompts[prompt_id])
    if prompts[longest] >= student:
        raise UserError(
            f"setting.prompts: prompt {longest!r} has {prompts[longest]} tokens and leaves no room in the student's context of {student}; "
            "take such prompts out of the file, or give a student of a longer context."
        )
    written = min(prompts[longest] + setting.max_new_tokens, student)  # a student's completion ends with its context
    if written > teacher:
        fits = teacher - prompts[longest]
        raise UserError(
            f"the teacher has a context of {teacher} tokens, and a prompt with its completion may have {written}, of which it would score "
            f"positions that it was not made for; give {f'setting.max_new_tokens={fits} or less, ' if fits > 0 else ''}shorter prompts, "
            "or another teacher."
        )
    if longest_reference > min(student, teacher):
        raise UserError(
            f"setting.prompts: a prompt with its reference has {longest_reference} tokens, the shorter context of the two models has "
            f"{min(student, teacher)}; take such rows out of the file."
        )


def _first_difference(student: dict[str, int], teacher: dict[str, int]) -> str:
    for token in sorted(student.keys() | teacher.keys(), key=lambda t: (student.get(t, 2**31), t)):
        ids = [str(vocabulary.get(token, "missing")) for vocabulary in (student, teacher)]
        if ids[0] != ids[1]:
            return f"token {token!r} is {ids[0]} for the student and {ids[1]} for the teacher ({len(student)} and {len(teacher)} tokens in all)"
    return "no difference"
