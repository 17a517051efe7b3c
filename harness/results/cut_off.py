"""Answers that the length limit cut off, said where it is nearly all of them: such a score measures the limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness.results.record import Evaluation

NEARLY_ALL = 0.9  # share of the samples from which on it is said


def scored_lines(label: str, evaluations: Iterable[Evaluation]) -> list[str]:
    """A line for every column of which nearly all answers were cut off."""
    return [
        f"{label}, {entry.column}: {100 * entry.truncated_frac:.0f} % of the answers were cut off at the length limit; "
        "raise evaluation.max_new_tokens."
        for entry in evaluations
        if entry.truncated_frac >= NEARLY_ALL
    ]


def trained_line(label: str, rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Likewise of the completions of a training; `rows` are its metrics."""
    shares = [row["truncated_frac"] for row in rows if "truncated_frac" in row]
    if not shares or (share := sum(shares) / len(shares)) < NEARLY_ALL:
        return []
    return [f"{label}: {100 * share:.0f} % of the completions were cut off in training; raise setting.max_new_tokens."]
