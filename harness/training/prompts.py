"""Training prompts: a JSONL file or a Hub data set, rendered by the student's chat template, in an order that only the seed decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from harness.errors import UserError
from harness.files import locate, read_rows
from harness.seeds import generator_of


@dataclass(frozen=True)
class Prompt:
    """One training prompt."""

    prompt_id: str
    ids: tuple[int, ...]  # rendered by the chat template, ready to be continued
    reference_ids: tuple[int, ...] | None = None  # the data set's own response, end token included


def load_prompts(source: str, tokenizer: PreTrainedTokenizerBase, *, split: str, max_tokens: int) -> list[Prompt]:
    """Reads prompts from a .jsonl file or a Hub data set.

    A row holds `prompt` (the user's message) or `messages` (a conversation that ends with the user's turn), and
    optionally `id` and `reference`.
    Prompts longer than `max_tokens` are refused, never truncated.
    """
    rows = _jsonl_rows(Path(locate(source))) if source.endswith((".jsonl", ".json")) else _hub_rows(source, split)
    if tokenizer.chat_template is None:
        raise UserError("the student's tokenizer has no chat template, which prompts are rendered by; add one to it.")
    conversations = [_conversation(row, where) for where, row in rows]
    texts = tokenizer.apply_chat_template(conversations, add_generation_prompt=True, tokenize=False) if rows else []
    all_ids = tokenizer(texts, add_special_tokens=False)["input_ids"] if rows else []
    references = _references([row for _, row in rows], tokenizer)
    prompts = []
    for number, ((where, row), ids) in enumerate(zip(rows, all_ids, strict=True)):
        if not 0 < len(ids) <= max_tokens:
            raise UserError(
                f"{where}: the prompt has {len(ids)} tokens, setting.max_prompt_tokens allows 1 to {max_tokens}."
            )
        prompts.append(Prompt(str(row.get("id", number)), tuple(ids), references.get(number)))
    if not prompts:
        raise UserError(f"setting.prompts={source!r} holds no prompts.")
    if len({p.prompt_id for p in prompts}) < len(prompts):
        raise UserError(f"setting.prompts={source!r} has two rows with the same id; ids must be unique.")
    return prompts


def prompt_order(count: int, seed: int, needed: int) -> list[int]:
    """Indices of the prompts of a whole run: one permutation per pass over the data, a function of the seed alone."""
    order: list[int] = []
    epoch = 0
    while len(order) < needed:
        order += generator_of("prompts", seed, epoch).permutation(count).tolist()
        epoch += 1
    return order[:needed]


def _jsonl_rows(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    if not path.is_file():
        raise UserError(
            f"setting.prompts: there is no file {str(path)!r}; give another, or make it with python -m harness.prepare."
        )
    return [
        (f"{path}, line {number}", row)
        for number, row in read_rows(path, torn_last_line="refuse", way_out="mend or delete the line")
    ]


def _hub_rows(name: str, split: str) -> list[tuple[str, Mapping[str, Any]]]:
    import datasets

    try:
        data = datasets.load_dataset(name, split=split)
    except Exception as error:  # the library raises many unrelated types; all mean that the set cannot be read
        raise UserError(
            f"cannot load setting.prompts={name!r} (split {split!r}) from the Hub: {str(error).splitlines()[0]}"
        ) from error
    return [(f"{name}, row {i}", row) for i, row in enumerate(data)]


def _conversation(row: Mapping[str, Any], where: str) -> list[dict[str, str]]:
    if row.get("messages") is not None:
        return row["messages"]
    if not isinstance(row.get("prompt"), str):
        raise UserError(f"{where}: needs a text field 'prompt' or a list 'messages'.")
    return [{"role": "user", "content": row["prompt"]}]


def _references(rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[int, tuple[int, ...]]:
    """The data set's own responses by row, end token included, where a row has one."""
    numbers = [number for number, row in enumerate(rows) if row.get("reference") is not None]
    if not numbers:
        return {}
    encoded = tokenizer([rows[number]["reference"] for number in numbers], add_special_tokens=False)["input_ids"]
    return {number: (*ids, tokenizer.eos_token_id) for number, ids in zip(numbers, encoded, strict=True)}
