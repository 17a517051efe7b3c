"""How training went, for a comparison that is scored on no task: the first and the last steps of every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.results.record import read_metrics

WINDOW = 10  # steps, at most, that stand for the beginning and for the end; no more than half of the run
METRICS = {  # of metrics.jsonl -> in words; `loss` is each method's own, and comparable within one alone
    "loss": "loss",
    "kl/reverse_k1": "reverse KL, nats a token",
    "length/completion": "tokens a completion",
}


def loss_lines(folders: Sequence[Path]) -> list[str]:
    """A line for every run folder that has trained: the mean of each metric over its first and its last steps."""
    lines = []
    for folder in folders:
        rows = read_metrics(folder)
        if not rows:
            continue
        window = min(WINDOW, max(1, len(rows) // 2))
        parts = [
            f"{words} {_mean(rows[:window], key):.4g} -> {_mean(rows[-window:], key):.4g}"
            for key, words in METRICS.items()
            if all(key in row for row in rows)
        ]
        where = f"first and last {window} of {len(rows)} steps"
        lines.append(f"{folder.parent.name} {folder.name}, {where}: {'; '.join(parts)}")
    return lines


def _mean(rows: Sequence[Mapping[str, float]], key: str) -> float:
    return sum(row[key] for row in rows) / len(rows)
