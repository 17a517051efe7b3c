"""A row of a data set as a conversation that ends with the user's turn, and the answer that it may have with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError

COLUMNS = ("messages", "conversations", "prompt", "problem", "question")  # the first that a row has
LISTS = ("messages", "conversations")  # never a text
ROLES = ("system", "developer", "user", "assistant", "tool")
SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}  # ShareGPT


@dataclass(frozen=True)
class Example:
    """One row."""

    conversation: tuple[dict[str, Any], ...]  # turns {"role", "content"}; the last is not the assistant's
    reference: str | None  # the data set's own answer


def example_of(row: Mapping[str, Any], place: str) -> Example:
    """Reads a row; UserError says what it lacks. A last turn of the assistant's is the reference, not of the prompt."""
    column = _column(row, place)
    turns = _turns(row[column], f"{place}: {column}", column in LISTS)
    reference = row.get("reference")
    if reference is not None:
        reference = _text(reference, f"{place}: reference")
    if turns[-1]["role"] == "assistant":
        answer = turns.pop()["content"]
        if reference not in (None, answer):
            raise UserError(f"{place}: its reference and the assistant's last turn are two answers; keep one.")
        reference = answer
    if not turns or turns[-1]["role"] not in ("user", "tool"):
        raise UserError(f"{place}: {column} has no user's turn at its end, which the student could answer.")
    return Example(tuple(turns), reference)


def first_question(row: Mapping[str, Any], place: str) -> str:
    """The user's first message, whatever follows it; it may be empty."""
    column = _column(row, place)
    value = row[column]
    if isinstance(value, str) and column not in LISTS:
        return value
    if not isinstance(value, list) or not value or not isinstance(value[0], Mapping):
        raise UserError(f"{place}: needs a list {column!r} with the user's message first.")
    first = _turn(value[0], f"{place}: {column}, turn 1", blank=True)
    if first["role"] != "user":
        raise UserError(f"{place}: its first message is not the user's.")
    return str(first["content"])


def _column(row: Mapping[str, Any], place: str) -> str:
    for name in COLUMNS:
        if row.get(name) is not None:
            return name
    raise UserError(f"{place}: has none of the columns {_listed(COLUMNS)}; it has {_listed(sorted(row)) or 'none'}.")


def _turns(value: Any, place: str, never_text: bool) -> list[dict[str, Any]]:
    if isinstance(value, str):
        if never_text:
            raise UserError(f"{place} is a text; it must be a list of turns (if the text is JSON, store what it says).")
        return [{"role": "user", "content": _text(value, place)}]
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        raise UserError(f'{place} is no list of turns such as {{"role": "user", "content": "..."}}.')
    if not value:
        raise UserError(f"{place} is empty; delete the row or give it a user's turn.")
    return [_turn(turn, f"{place}, turn {number}") for number, turn in enumerate(value, 1)]


def _turn(turn: Mapping[str, Any], place: str, blank: bool = False) -> dict[str, Any]:
    """{"role", "content"} of a turn in that form or in ShareGPT's {"from", "value"}; other keys are the template's."""
    sharegpt = "from" in turn and "role" not in turn
    speaker = turn.get("from" if sharegpt else "role")
    known = SPEAKERS if sharegpt else {role: role for role in ROLES}
    if not isinstance(speaker, str) or speaker not in known:
        raise UserError(
            f"{place}: {'from' if sharegpt else 'role'} is {speaker!r}; it must be one of {_listed(known)}."
        )
    content = turn.get("value" if sharegpt else "content")
    rest = {k: v for k, v in turn.items() if v is not None and k not in ("role", "content", "from", "value")}
    return {"role": known[speaker], "content": _text(_joined(content, place), place, blank), **rest}


def _joined(content: Any, place: str) -> Any:
    """Content in parts, as one text; parts that are none cannot be read."""
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise UserError(f"{place}: a part of its content is no text; the harness reads texts alone.")
    return "".join(part["text"] for part in content)


def _text(value: Any, place: str, blank: bool = False) -> str:
    """The value, if it is a text that says something (unless it may be `blank`) and can be written."""
    if not isinstance(value, str):
        raise UserError(f"{place}: is {value!r:.40}; it must be a text.")
    if not value.strip() and not blank:
        raise UserError(f"{place}: is empty; delete the row or fill it in.")
    if not is_text(value):
        raise UserError(f"{place}: holds half of a surrogate pair, which is no text; mend the row.")
    return value


def is_text(value: str) -> bool:
    """Whether it can be written: JSON may hold halves of surrogate pairs."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _listed(names: Any) -> str:
    return ", ".join(map(str, names))
