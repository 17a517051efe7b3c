"""What a diagnosis points to: warnings, and published comparisons whose pairs had such numbers.

A pointer, no promise: that a method won on a pair with like numbers says where to look first. The pairs are small, and
two numbers that agree do not make two pairs alike.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.config.settings import RunConfig
from harness.files import ROOT

PUBLISHED = ("tiny_cpu", "tiny_latent", "tiny_style")  # results/diagnose/NAME/diagnosis.json, and results/NAME
COMPARED = ("reverse_kl", "total_variation", "hard_outliers", "student_entropy")
SMALLEST = 1e-4  # of a number, before its logarithm: below it there is none of it
CUT_SHARE = 0.25  # of completions, from which on their cutting is said
STOP_RATIO = 0.1  # the teacher's probability of an end over the student's, where it stopped


def warnings_of(diagnosis: Mapping[str, Any], runs: Sequence[RunConfig]) -> list[str]:
    """What is likely to be a mistake, or to be left out here."""
    found, pair = [], diagnosis["pair"]
    if pair["truncated"] > CUT_SHARE:
        found.append(
            f"{pair['truncated']:.0%} of the completions were cut at setting.max_new_tokens="
            f"{runs[0].setting.max_new_tokens}: the student is not trained on how it ends them."
        )
    stops = pair["stops"]
    if stops["student_at_end"] and stops["teacher_at_end"] < STOP_RATIO * stops["student_at_end"]:
        found.append(
            f"where the student ended, the teacher gives an end {stops['teacher_at_end']:.2g} and the student "
            f"{stops['student_at_end']:.2g}: the two may end by different tokens; see the end tokens below."
        )
    references = diagnosis["references"]
    if references and references["teacher"] <= references["student"]:
        found.append(
            f"the teacher gives the prompts' own responses {references['teacher']:.2f} nats a token and the student "
            f"{references['student']:.2f}: on these prompts it is no better, so that there may be nothing to learn."
        )
    guided = [run.method_name for run in runs if run.method is not None and run.method.needs_teacher_responses()]
    if guided:
        found.append(
            f"{', '.join(guided)}: seen without the teacher's beginnings, on completions that the student wrote whole."
        )
    return found


def pointers_of(diagnosis: Mapping[str, Any]) -> list[str]:
    """Published pairs, the nearest first, and what came of the methods there."""
    known = []
    for name in PUBLISHED:
        path = ROOT / "results" / "diagnose" / name / "diagnosis.json"
        if name != diagnosis["setting"] and path.is_file():
            there = json.loads(path.read_text(encoding="utf-8"))
            known.append((distance(diagnosis["pair"], there["pair"]), name, there["pair"]))
    asked = [name for name in diagnosis["gradients"] if name != "opd"]
    return [_pointer(apart, name, pair, asked) for apart, name, pair in sorted(known, key=lambda k: k[0])]


def distance(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """How many times larger or smaller a pair's numbers are, as a geometric mean: 1 is the same."""
    logs = [math.log(max(a[key], SMALLEST) / max(b[key], SMALLEST)) for key in COMPARED]
    return math.exp(math.sqrt(sum(x * x for x in logs) / len(logs)))


def _pointer(apart: float, name: str, pair: Mapping[str, Any], asked: Sequence[str]) -> str:
    numbers = ", ".join(f"{key.replace('_', ' ')} {pair[key]:.2g}" for key in COMPARED)
    rows = differences(name)
    came = "; ".join(f"{method} {rows[method]}" for method in asked if method in rows)
    return (
        f"{name} ({numbers}) is a factor of {apart:.1f} away. There, in points minus opd with 95 % intervals at "
        f"temperature 1: {came or 'none of these methods was compared'}."
    )


def differences(name: str) -> dict[str, str]:
    """Method -> its published difference to OPD, in points."""
    path = ROOT / "results" / name / "leaderboard.json"
    if not path.is_file():
        return {}
    found = {}
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        for score in row["scores"].values():
            if (d := score.get("difference")) and row["method"] == row["label"]:
                estimate, low, high = (100 * d[key] for key in ("estimate", "low", "high"))
                found[row["label"]] = f"{estimate:+.1f} [{low:.1f}, {high:.1f}]"
    return found
