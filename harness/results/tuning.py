"""The summary of `python -m harness.tune`: what every method scored at every learning rate, and which one is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UserError
from harness.files import write_text
from harness.results.collect import without_rate
from harness.results.markdown import table
from harness.results.record import RunRecord
from harness.types import UNTRAINED


@dataclass(frozen=True)
class Tuned:
    """The trials of one method."""

    scores: dict[float, float]  # on the development task, by rate
    best: float  # rate
    at_edge: bool  # the best rate is the grid's smallest or largest
    trials: int
    student_tokens: int  # of all trials
    seconds: float  # of rollouts, scoring and updates of all trials


def summarise(records: Sequence[RunRecord]) -> tuple[dict[str, Tuned], dict[str, int]]:
    """Methods with a trial at every rate of the grid, and the number of trials of those without, by label."""
    trained = [record for record in records if record.method not in UNTRAINED]
    grid = sorted({float(record.setting["learning_rate"]) for record in trained})
    by_label: dict[str, list[RunRecord]] = {}
    for record in trained:
        if record.status == "completed":
            by_label.setdefault(record.label, []).append(record)
    tuned: dict[str, Tuned] = {}
    partial = dict.fromkeys((record.label for record in trained), 0)
    for label, found in sorted(by_label.items()):
        scores = {float(record.setting["learning_rate"]): record.evaluations[0].score for record in found}
        if sorted(scores) != grid:
            partial[label] = len(scores)
            continue
        del partial[label]
        best = max(grid, key=lambda rate: scores[rate])
        counters = [record.counters for record in found]
        seconds = sum(c.rollout_s + c.scoring_s + c.update_s for c in counters)
        tokens = sum(c.student_tokens for c in counters)
        edge = best in (grid[0], grid[-1])
        tuned[label] = Tuned(
            {r: scores[r] for r in grid}, best, edge, len(grid), student_tokens=tokens, seconds=round(seconds, 1)
        )
    return tuned, dict(sorted(partial.items()))


def best_for_all(tuned: Mapping[str, Tuned]) -> float:
    """The rate with the best score averaged over the methods."""
    grid = list(next(iter(tuned.values())).scores)
    return max(grid, key=lambda rate: sum(entry.scores[rate] for entry in tuned.values()))


def write_summary(folder: Path, setting: str, records: Sequence[RunRecord]) -> None:
    """Writes <setting>.yaml and <setting>.md."""
    seeds = {record.seed for record in records}
    tasks = {(e.task, e.protocol_hash, e.decoding) for record in records for e in record.evaluations}
    kinds = {without_rate(record.setting) for record in records}
    for what, found in (("seeds", seeds), ("development tasks", tasks), ("settings", kinds)):
        if len(found) > 1:
            raise UserError(f"the trials of {setting} in {folder} have different {what}; keep one kind.")
    tuned, partial = summarise(records)
    if not tuned:
        raise UserError(f"no method has a finished trial at every rate of {setting}; see the tables in {folder}.")
    ((task, protocol, decoding),) = tasks
    content: dict[str, Any] = {
        "setting": setting,
        "task": task,
        "protocol_hash": protocol,
        **({"decoding": decoding} if decoding else {}),
        "seed": seeds.pop(),
        "grid": list(next(iter(tuned.values())).scores),
        "best_for_all": best_for_all(tuned),
        "methods": {label: asdict(entry) for label, entry in tuned.items()},
        "not_tuned": partial,  # trials that these have, of the grid's
    }
    write_text(folder / f"{setting}.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    write_text(folder / f"{setting}.md", render(content))


def render(content: Mapping[str, Any]) -> str:
    """The summary as markdown."""
    grid, methods = content["grid"], content["methods"]
    header = ["method", *(f"{rate:g}" for rate in grid), "own best", "trials", "student tokens", "seconds"]
    rows = []
    for label, entry in methods.items():
        scores = [f"{100 * entry['scores'][rate]:.1f}" for rate in grid]
        best = f"{entry['best']:g}{' (end of the grid)' if entry['at_edge'] else ''}"
        cost = [str(entry["trials"]), f"{entry['student_tokens']:,}", f"{entry['seconds']:.0f}"]
        rows.append([label, *scores, best, *cost])
    decoded = f", {content['decoding']} decoding" if "decoding" in content else ""
    partial = ", ".join(f"{label} ({count} of {len(grid)})" for label, count in content["not_tuned"].items())
    return (
        f"Learning rates of {content['setting']}: accuracy in % on {content['task']} (protocol "
        f"{content['protocol_hash'][:8]}{decoded}), one trial a method and rate, "
        f"seed {content['seed']}. Best for all, averaged over these methods: "
        f"{content['best_for_all']:g}.\n\n"
        + table(header, rows, "lr")
        + (f"\n\nWithout a trial at every rate: {partial}." if partial else "")
        + "\n"
    )
