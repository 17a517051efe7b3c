"""Training prompts, rendered by the student's chat template, in an order that only the seed decides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from harness.config.settings import Setting
from harness.errors import UserError
from harness.models.template import check_template, render
from harness.seeds import generator_of
from harness.training.conversations import Example, example_of, is_text
from harness.training.rows import read_rows

CHARACTERS_PER_TOKEN = 512  # more than any tokenizer writes in one, but for texts that are no prompts


@dataclass(frozen=True)
class Prompt:
    """One training prompt."""

    prompt_id: str
    ids: tuple[int, ...]  # rendered by the chat template, ready to be continued
    reference: str | None = None  # the data set's own response
    tokenizer: PreTrainedTokenizerBase | None = field(default=None, repr=False, compare=False)  # of the reference
    special: str = field(default="", compare=False)  # the first special token that a turn spells out, if one does

    @property
    def reference_ids(self) -> tuple[int, ...] | None:
        """The data set's own response, end token included; tokenised when asked for, since few methods train on it."""
        if self.reference is None or self.tokenizer is None or self.tokenizer.eos_token_id is None:
            return None
        ids = self.tokenizer(self.reference, add_special_tokens=False)["input_ids"]
        return (*ids, self.tokenizer.eos_token_id)


def prompts_of(setting: Setting, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
    """The prompts of a Setting, by the student's tokenizer."""
    return load_prompts(
        setting.prompts,
        tokenizer,
        split=setting.prompts_split,
        max_tokens=setting.max_prompt_tokens,
        template_kwargs=setting.chat_template_kwargs or {},
    )


def load_prompts(
    source: str, tokenizer: PreTrainedTokenizerBase, *, split: str, max_tokens: int, template_kwargs: Mapping[str, Any]
) -> list[Prompt]:
    """Reads prompts from a file, a folder or a Hub data set (harness.training.rows, harness.training.conversations).

    Prompts longer than `max_tokens` are refused, never truncated.
    """
    check_template(tokenizer, template_kwargs)
    rows = list(read_rows(source, split))
    if not rows:
        raise UserError(f"setting.prompts={source!r} holds no prompts.")
    examples = [example_of(row, place) for place, row in rows]
    texts = []
    for (place, _), example in zip(rows, examples, strict=True):
        _check_size(sum(len(turn["content"]) for turn in example.conversation), max_tokens, place)
        try:
            texts.append(render(tokenizer, example.conversation, template_kwargs))
        except UserError as error:
            raise UserError(f"{place}: {error}") from error
        _check_system(example, texts[-1], place)
        _check_size(len(texts[-1]), max_tokens, place)  # a template may write much itself
    prompts = []
    special = re.compile("|".join(map(re.escape, _special_tokens(tokenizer))) or "(?!)")
    all_ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    for number, ((place, row), example, ids) in enumerate(zip(rows, examples, all_ids, strict=True)):
        if not 0 < len(ids) <= max_tokens:
            raise UserError(
                f"{place}: the prompt has {len(ids)} tokens, setting.max_prompt_tokens allows 1 to {max_tokens}."
            )
        prompt_id = number if row.get("id") is None else row["id"]
        if not isinstance(prompt_id, str | int | float) or not is_text(str(prompt_id)):
            raise UserError(f"{place}: id is {prompt_id!r:.40}; it must be a text or a number.")
        spelled = special.search("\0".join(turn["content"] for turn in example.conversation))
        spelled_out = spelled[0] if spelled else ""
        prompts.append(Prompt(str(prompt_id), tuple(ids), example.reference, tokenizer, special=spelled_out))
    if len({p.prompt_id for p in prompts}) < len(prompts):
        raise UserError(f"setting.prompts={source!r} has two rows with the same id; ids must be unique.")
    return prompts


def prompt_doubts(source: str, prompts: Sequence[Prompt]) -> Iterator[str]:
    """What is allowed and hardly meant, in words."""
    if found := [prompt for prompt in prompts if prompt.special]:
        yield (
            f"{len(found)} of the {len(prompts)} prompts of setting.prompts={source!r} spell out a special token, "
            f"which is read as that token (prompt {found[0].prompt_id!r}: {found[0].special!r}); the chat template is "
            "applied to them all the same: where they are rendered already, store the turns alone"
        )


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Longest first, so that the whole of one is found."""
    found = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted(found, key=lambda text: (-len(text), text))


def _check_system(example: Example, text: str, place: str) -> None:
    """Some templates pass a system turn over without a word."""
    for turn in example.conversation:
        if turn["role"] == "system" and turn["content"].strip() not in text:
            raise UserError(
                f"{place}: the chat template leaves the system turn {turn['content']!r:.60} out; take it out of the "
                "row, or put it into the user's."
            )


def _check_size(characters: int, max_tokens: int, place: str) -> None:
    """A tokenizer takes minutes for what is refused anyway."""
    if characters > CHARACTERS_PER_TOKEN * max_tokens:
        raise UserError(
            f"{place}: the prompt has {characters} characters, more than setting.max_prompt_tokens={max_tokens} tokens "
            "can hold."
        )


def prompt_order(count: int, seed: int, needed: int) -> list[int]:
    """Indices of the prompts of a whole run: one permutation per pass over the data, a function of the seed alone."""
    order: list[int] = []
    epoch = 0
    while len(order) < needed:
        order += generator_of("prompts", seed, epoch).permutation(count).tolist()
        epoch += 1
    return order[:needed]
