r"""What an answer consists of: members of an equality, elements of a list, a tuple, a set or a matrix, conditions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.math_notation import TEXT
from tasks.math_numbers import squeezed

VARIABLE = r"\\?[A-Za-z]+(?:_(?:\{[\w ]+\}|\w))?'*(?:\([A-Za-z, ]+\))?"
SIMPLE_VARIABLE = re.compile(r"(?:[A-Za-z]|\\[a-z]+)(?:_(?:\{\w+\}|\w))?'*(?:\([A-Za-z, ]+\))?")
# what a value may be called: x, m + n, f(2), P(A \cap B), |AB|, (x, y), \angle ABC
_NAME = re.compile(
    rf"{VARIABLE}(?:\s*[+*-]\s*{VARIABLE})*|[A-Za-z]+(?:\^\{{-1\}})?\s*\([^=]*\)|\|[A-Z]+\||\([A-Za-z](?:\s*,\s*[A-Za-z])+\)"
    r"|\\(?:angle|triangle|overline|widehat)\s*\{?\s*[A-Z]+\s*\}?|\[[A-Z]+\]"
)
_SET_BUILDER = re.compile(
    r"\\\{\s*(?P<name>[A-Za-z])\s*(?:\\in\s*\\mathbb\{R\}\s*)?(?:\\mid|\\:|:|\|)\s*(?P<condition>.+)\\\}"
)
_IN_REALS = re.compile(
    r"\s*(?:,|\\land)\s*[A-Za-z]\s*\\in\s*\\mathbb\{R\}\s*$|^\s*[A-Za-z]\s*\\in\s*\\mathbb\{R\}\s*(?:,|\\land)\s*"
)
_CONNECTIVE = re.compile(
    rf"(?P<group>(?:,\s*)?{TEXT}\s*\{{(?P<text>[^{{}}]*)\}})|(?:,\s*)?(?<![A-Za-z\\])(?P<bare>and|or)(?![A-Za-z])", re.I
)
_MATRIX = re.compile(r"\\begin\{matrix\}(.*)\\end\{matrix\}", re.S)
_ENDS = re.compile(r"^(?:\\[,;:! ]|~|\s)+|(?:(?<!\\)\\[,;:! ]|~|\s)+$")
_TRANSPOSED = re.compile(r"\^\s*\{?\s*(?:T|\\top|\\intercal)\s*\}?$")
_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])|\\mp(?![A-Za-z])|\+\s*/\s*-|\+-")


@dataclass(frozen=True)
class Collection:
    """Several values together."""

    kind: Literal["matrix", "tuple", "set", "list"]
    items: tuple[str, ...]  # of a matrix row by row
    columns: int = 1  # of a matrix
    brackets: str = ""  # of a tuple: "()", "[)" and so on


def with_connectives(text: str) -> str:
    r"""`\text{ and }` and `or` as `\land` and `\lor`; words in the middle of a text stay."""

    def replaced(match: re.Match[str]) -> str:
        word = (match["bare"] or match["text"]).strip(" ,").lower()
        return {"and": r" \land ", "or": r" \lor "}.get(word, match[0])

    return _CONNECTIVE.sub(replaced, text)


def split_top(text: str, separators: Sequence[str], keep: bool = False) -> list[str]:
    """The text between separators that stand outside of all brackets; with `keep`, the separators too."""
    pieces, start, position, depth = [], 0, 0, 0
    while position < len(text):
        if text.startswith((r"\{", r"\begin"), position) or text[position] in "([{":
            depth += 1
        elif text.startswith((r"\}", r"\end"), position) or text[position] in ")]}":
            depth -= 1
        if depth == 0 and (found := _separator_at(text, position, separators)):
            pieces += [text[start:position], found] if keep else [text[start:position]]
            position += len(found)
            start = position
        else:
            position += (
                2 if text[position] == "\\" and position + 1 < len(text) and not text[position + 1].isalpha() else 1
            )
    return [*pieces, text[start:]]


def _separator_at(text: str, position: int, separators: Sequence[str]) -> str | None:
    for separator in separators:
        if text.startswith(separator, position):
            end = position + len(separator)
            if separator[0] != "\\" or end == len(text) or not text[end].isalpha():
                return separator
    return None


def members(text: str) -> list[str]:
    """The members of an equality; one where there is no equality sign."""
    if re.search(r"[<>!:]=|\\(?:le|ge|ne)(?![A-Za-z])|[<>]", text):
        return [text]
    return [member.strip() for member in split_top(text, ("=",))]


def is_name(text: str) -> bool:
    """Whether the text only names a value."""
    text = text.strip()
    if re.fullmatch(TEXT + r"\s*\{[^{}]*\}(?:\s*\([^()]*\))?", text):
        return True
    return _NAME.fullmatch(text) is not None and not re.fullmatch(r"\\(?:pi|infty|emptyset)", text)


def is_variable(name: str) -> bool:
    """Whether the name is one variable or f(x). `m + n = 25` gives a value too, but as a gold it is an equation."""
    return SIMPLE_VARIABLE.fullmatch(squeezed(name)) is not None


def tuple_parts(text: str) -> tuple[tuple[str, str], list[str]] | None:
    """Brackets and elements of `(a, b)`, `[a, b)` and so on; None where the text is not one bracket with a comma."""
    text = text.strip()
    text = re.sub(r"^\\langle\s*(.*?)\\rangle$", r"(\1)", text)
    if len(text) < 5 or text[0] not in "([" or text[-1] not in ")]":
        return None
    depth = 0
    for position, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if depth == 0 and position < len(text) - 1:
            return None  # the first bracket closes before the end
    parts = [_ENDS.sub("", part) for part in split_top(text[1:-1], (",",))]
    return ((text[0], text[-1]), parts) if len(parts) > 1 and all(parts) else None


def set_condition(text: str) -> str | None:
    r"""The condition of `\{x \mid x > 2\}`; None for anything else."""
    match = _SET_BUILDER.fullmatch(text.strip())
    return _IN_REALS.sub("", match["condition"].strip()) if match else None


def collection(text: str) -> Collection | None:
    """The text as several values; None where it is one."""
    text = text.strip()
    if matrix := _MATRIX.fullmatch(text):
        rows = [[cell.strip() for cell in row.split("&")] for row in re.split(r"\\\\", matrix[1]) if row.strip()]
        if not rows or len({len(row) for row in rows}) != 1 or r"\begin" in matrix[1]:
            return None
        return Collection("matrix", tuple(cell for row in rows for cell in row), len(rows[0]))
    if text.startswith(r"\{") and text.endswith(r"\}") and not text[2:].startswith(r"\}"):
        inner = text[2:-2]
        if r"\}" not in inner and r"\{" not in inner and not re.search(r"\\mid|[|:]|\\ldots", inner):
            return Collection("set", _expanded(split_top(inner, (",",))))
        return None
    if parts := tuple_parts(_TRANSPOSED.sub("", text)):
        return Collection("tuple", tuple(parts[1]), brackets="".join(parts[0]))
    items = _expanded(split_top(text, (",", ";", r"\land", r"\lor")))
    return Collection("list", items) if len(items) > 1 else None


def _expanded(parts: Sequence[str]) -> tuple[str, ...]:
    r"""Elements without empty ones; `1 \pm \sqrt{5}` is two."""
    items: list[str] = []
    for part in (_ENDS.sub("", part) for part in parts):
        if len(_PLUS_MINUS.findall(part)) == 1:
            items += [_PLUS_MINUS.sub(sign, part).strip().removeprefix("+") for sign in "+-"]
        elif part:
            items.append(part)
    return tuple(items)
