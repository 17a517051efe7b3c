"""A table in which every method has its own best learning rate: `python -m harness.own_rates`, whose help says why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UserError
from harness.results.cells import MethodRuns, find_lead, matrix, runs_of
from harness.results.collect import without_rate
from harness.results.leaderboard import BASELINE
from harness.results.markdown import table
from harness.results.record import RunRecord
from harness.results.render import NOTHING, format_difference, format_interval
from harness.results.statistics import paired_difference


def load_tuning(path: Path) -> Mapping[str, Any]:
    """A summary that harness.tune wrote."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not {"setting", "seed", "methods", "grid"} <= content.keys():
            raise ValueError("it lacks setting, seed, grid or methods")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not a summary of python -m harness.tune ({error}).") from error
    return content


def choose(records: Sequence[RunRecord], tuning: Mapping[str, Any], task: str) -> dict[str, tuple[float, MethodRuns]]:
    """Each tuned method's rate and its runs at that rate; UserError where there are none, or runs that differ
    otherwise.
    """
    if len({without_rate(record.setting) for record in records}) > 1:
        raise UserError(
            "Mixtures refused: the runs differ in more than the learning rate; give folders of one setting."
        )
    if (name := records[0].setting["name"]) != tuning["setting"]:
        raise UserError(f"the runs are of {name}, the learning rates were chosen for {tuning['setting']}.")
    chosen: dict[str, tuple[float, MethodRuns]] = {}
    for label, entry in tuning["methods"].items():
        rate = float(entry["best"])
        found = [r for r in records if r.label == label and math.isclose(r.setting["learning_rate"], rate)]
        if not found:
            raise UserError(
                f"no run of {label} at its own best rate {rate:g}; run it with setting.learning_rate={rate:g}."
            )
        if any(record.seed == tuning["seed"] for record in found):
            raise UserError(
                f"{label} has a run of seed {tuning['seed']}, which the rates were chosen on; leave it out."
            )
        chosen[label] = (rate, runs_of(label, found[0].setting["steps"], found, task))
    return chosen


def render(chosen: Mapping[str, tuple[float, MethodRuns]], tuning: Mapping[str, Any], task: str) -> str:
    """The table as markdown."""
    verdict = find_lead([runs for _, runs in chosen.values()])
    rows = []
    for label in sorted(chosen, key=lambda label: -verdict.intervals[label].estimate):
        rate, runs = chosen[label]
        seeds = ", ".join(str(seed) for _, seed in sorted(runs.evaluations))
        edge = " (end of the grid)" if tuning["methods"][label].get("at_edge") else ""
        score = format_interval(verdict.intervals[label])
        rows.append([label, f"{rate:g}{edge}", seeds, score, _to_baseline(runs, chosen)])
    header = ["method", "learning rate", "seeds", "score", f"minus {BASELINE}"]
    note = (
        f"Setting {tuning['setting']}, but for the learning rate: each method has its own best of "
        f"{', '.join(f'{r:g}' for r in tuning['grid'])}, chosen on development problems with seed {tuning['seed']}. "
        f"Task {task}; scores in %."
    )
    winner = f"Winner: {verdict.leader}." if not verdict.rivals and len(chosen) > 1 else "No winner."
    return "\n\n".join([note, table(header, rows, "lrlrr"), f"{winner} (All pairs, Holm-corrected, 5 %.)"]) + "\n"


def _to_baseline(runs: MethodRuns, chosen: Mapping[str, tuple[float, MethodRuns]]) -> str:
    if runs.label == BASELINE or BASELINE not in chosen:
        return NOTHING
    base = chosen[BASELINE][1]
    shared = sorted(set(runs.evaluations) & set(base.evaluations))
    return format_difference(paired_difference(matrix(runs, shared), matrix(base, shared))) if shared else NOTHING
