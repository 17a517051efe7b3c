"""From a model's response to the program in it."""

from __future__ import annotations

import textwrap

FENCE = "```"


def extract_code(answer: str) -> str | None:
    """The text between the last two lines that contain a fence, as the official extraction has it; None without two."""
    lines = answer.split("\n")
    fences = [number for number, line in enumerate(lines) if FENCE in line]
    if len(fences) < 2:
        return None
    return "\n".join(lines[fences[-2] + 1 : fences[-1]])


def as_file(code: str) -> str:
    """The program as its author would have saved it: without the byte order mark, which Python passes over at the
    beginning of a file, and without the indentation of the list item or quotation that it stood in.
    """
    code = code.removeprefix("\ufeff")
    first = next((line for line in code.split("\n") if line.strip()), "")
    return textwrap.dedent(code) if first[:1].isspace() else code
