"""From a model's response to the program in it."""

from __future__ import annotations

FENCE = "```"


def extract_code(answer: str) -> str | None:
    """The text between the last two lines that contain a fence, as the official extraction has it; None without two."""
    lines = answer.split("\n")
    fences = [number for number, line in enumerate(lines) if FENCE in line]
    if len(fences) < 2:
        return None
    return "\n".join(lines[fences[-2] + 1 : fences[-1]])
