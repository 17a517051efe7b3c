"""Student and teacher as a pair: do they speak the same tokens, end with the same, and are both long enough?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import (
    PreTrainedTokenizerBase,
)

from harness.config.settings import RunConfig, Setting
from harness.errors import UserError
from harness.models.backbone import check_decoder
from harness.models.contexts import context_length_of
from harness.models.loading import load_config, load_tokenizer, stored_stop_ids

LISTED_ENDS = 5  # end tokens that a sentence names of each model; more are counted


def check_pair(config: RunConfig) -> int:
    """The shared vocabulary's size; reads tokenizers and configurations only."""
    setting = config.setting
    configs = [load_config(*side) for side in _sides(setting)]
    for model_config, (name, _) in zip(configs, _sides(setting), strict=True):
        check_decoder(model_config, name)
    student, teacher = [(load_tokenizer(*side), c) for side, c in zip(_sides(setting), configs, strict=True)]
    size = shared_vocab_size(student, teacher, setting.top_k)
    check_ends(setting, size)
    return size


def _sides(setting: Setting) -> list[tuple[str, str | None]]:
    return [(setting.student, setting.student_revision), (setting.teacher, setting.teacher_revision)]


@dataclass(frozen=True)
class Ends:
    """The end tokens of a pair: of each model's stored generation configuration, and of its tokenizer."""

    student: tuple[int, ...]
    teacher: tuple[int, ...]
    tokenizers: tuple[int | None, int | None]  # the tokenizers' own, the student's first
    names: dict[int, str]  # of the ids, by the tokenizer of the side that has them

    @property
    def union(self) -> tuple[int, ...]:
        """All of them; the student's tokenizer's own is the first, which stands for all where they are one event."""
        return tuple(dict.fromkeys(i for i in (self.tokenizers[0], *self.student, *self.teacher) if i is not None))

    def __str__(self) -> str:
        return f"{self._list(self.student, 0)} for the student and {self._list(self.teacher, 1)} for the teacher"

    def _list(self, ids: tuple[int, ...], side: int) -> str:
        shown = ids[:LISTED_ENDS] if len(ids) > LISTED_ENDS + 1 else ids
        words = [f"{i} {self.names[i]!r}" + " (tokenizer)" * (i == self.tokenizers[side]) for i in shown]
        more = f" and {len(ids) - len(shown)} more" * (len(ids) > len(shown))
        return (", ".join(words) or "none") + more


def ends_of(setting: Setting) -> Ends:
    """Reads both tokenizers and generation configurations."""
    sides = _sides(setting)
    tokenizers = [load_tokenizer(*side) for side in sides]
    stops = [stored_stop_ids(*side, tokenizer) for side, tokenizer in zip(sides, tokenizers, strict=True)]
    names = {i: str(t.convert_ids_to_tokens(i)) for t, ids in zip(tokenizers, stops, strict=True) for i in ids}
    return Ends(stops[0], stops[1], (tokenizers[0].eos_token_id, tokenizers[1].eos_token_id), names)


def ends_line(setting: Setting) -> str:
    """One line that says with what both models end, and what is made of it."""
    ends = ends_of(setting)
    made = "they are one event in training" if setting.termination == "map" else "they must be the same"
    return f"End tokens: {ends}; setting.termination={setting.termination}: {made}"


def check_ends(setting: Setting, vocab_size: int) -> None:
    """UserError for end tokens that differ (unless they are mapped), and for one that the shared vocabulary does not
    have.
    """
    ends = ends_of(setting)
    differ = set(ends.student) != set(ends.teacher) or ends.tokenizers[0] != ends.tokenizers[1]
    if setting.termination == "refuse" and differ:
        raise UserError(
            f"the end tokens differ: {ends}; give setting.termination=map, under which all of them are one event, or "
            "another pair."
        )
    if beyond := [i for i in ends.union if i >= vocab_size]:
        raise UserError(
            f"the end token {beyond[0]} is beyond the {vocab_size} tokens that student and teacher share: "
            "correct eos_token_id in that model's generation_config.json, or give another pair."
        )


def shared_vocab_size(
    student: tuple[PreTrainedTokenizerBase, Any], teacher: tuple[PreTrainedTokenizerBase, Any], top_k: int
) -> int:
    """Checks that two (tokenizer, config) pairs speak the same tokens; both heads are sliced to this many rows before
    the softmax.

    Heads may be padded to different sizes (151,936 against 152,064 in the Qwen2.5 family); ids must mean the same text.
    """
    maps = [tokenizer.get_vocab() for tokenizer, _ in (student, teacher)]
    if maps[0] != maps[1]:
        raise UserError(
            f"the tokenizers of student and teacher differ: {_first_difference(*maps)}. Use a pair that shares its "
            "tokenizer."
        )
    for side, (tokenizer, config) in {"student": student, "teacher": teacher}.items():
        check_head(tokenizer, config, f"the {side}")
    ids = [tokenizer.bos_token_id for tokenizer, _ in (student, teacher)]
    if ids[0] != ids[1]:
        raise UserError(
            f"the tokenizers differ: bos_token_id is {ids[0]} for the student and {ids[1]} for the teacher."
        )
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
            f"{name} has a head of {rows} rows, its tokenizer writes ids up to {needed - 1}; give the tokenizer that "
            "the model was made with, or resize its embeddings and save it."
        )


def check_contexts(config: RunConfig, prompts: Mapping[str, int], longest_reference: int = 0) -> None:
    """UserError if a prompt leaves the student no room, or if the teacher would score positions that it was not made
    for.

    Args: prompts: the number of tokens of each prompt, by id; longest_reference: likewise of the longest prompt with
        its reference, if the method trains on references.
    """
    setting = config.setting
    student, teacher = (
        context_length_of(load_config(*side))
        for side in ((setting.student, setting.student_revision), (setting.teacher, setting.teacher_revision))
    )
    longest = max(prompts, key=lambda prompt_id: prompts[prompt_id])
    if prompts[longest] >= student:
        raise UserError(
            f"setting.prompts: prompt {longest!r} has {prompts[longest]} tokens and leaves no room in the student's "
            f"context of {student}; take such prompts out of the file, or give a student of a longer context."
        )
    written = min(prompts[longest] + setting.max_new_tokens, student)  # a student's completion ends with its context
    if written > teacher:
        fits = teacher - prompts[longest]
        shorter = f"setting.max_new_tokens={fits} or less, " if fits > 0 else ""
        raise UserError(
            f"the teacher has a context of {teacher} tokens, and a prompt with its completion may have {written}, of "
            f"which it would score positions that it was not made for; give {shorter}shorter prompts, or another "
            "teacher."
        )
    if longest_reference > min(student, teacher):
        raise UserError(
            f"setting.prompts: a prompt with its reference has {longest_reference} tokens, the shorter context of the "
            f"two models has {min(student, teacher)}; take such rows out of the file."
        )


def _first_difference(student: dict[str, int], teacher: dict[str, int]) -> str:
    for token in sorted(student.keys() | teacher.keys(), key=lambda t: (student.get(t, 2**31), t)):
        ids = [str(vocabulary.get(token, "missing")) for vocabulary in (student, teacher)]
        if ids[0] != ids[1]:
            return (
                f"token {token!r} is {ids[0]} for the student and {ids[1]} for the teacher ({len(student)} and "
                f"{len(teacher)} tokens in all)"
            )
    return "no difference"
