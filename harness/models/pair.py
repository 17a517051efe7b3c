"""Student and teacher as a pair: do they speak the same tokens?"""

from __future__ import annotations

from typing import Any

from transformers import (
    PreTrainedTokenizerBase,
)

from harness.config.settings import RunConfig
from harness.errors import UserError
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
    size = min(config.get_text_config().vocab_size for _, config in (student, teacher))
    if top_k > size:
        raise UserError(
            f"setting.top_k={top_k} is larger than the shared vocabulary of {size} tokens; give a smaller one."
        )
    return size


def _first_difference(student: dict[str, int], teacher: dict[str, int]) -> str:
    for token in sorted(student.keys() | teacher.keys(), key=lambda t: (student.get(t, 2**31), t)):
        ids = [str(vocabulary.get(token, "missing")) for vocabulary in (student, teacher)]
        if ids[0] != ids[1]:
            return f"token {token!r} is {ids[0]} for the student and {ids[1]} for the teacher ({len(student)} and {len(teacher)} tokens in all)"
    return "no difference"
