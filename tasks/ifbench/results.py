"""`process_results` of the IFBench tasks and the aggregation of their four accuracies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.ifbench.grader import answer_text, grade
from tasks.sample_metrics import sample_metrics


def process_fixed_results(doc: Mapping[str, Any], results: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The same by checkers of which four are mended (tasks.ifbench.fixed)."""
    return process_results(doc, results, which="fixed")


def process_results(
    doc: Mapping[str, Any], results: Sequence[Sequence[str]], which: str = "official"
) -> dict[str, Any]:
    """Grades the k responses to one prompt. A sample counts as correct when the prompt is followed loosely.

    The authors of IFBench report prompt-level loose accuracy; the other three stand beside it.
    """
    constraints = json.loads(doc["constraints"])
    names = [entry["id"] for entry in constraints]
    kwargs = [entry["kwargs"] for entry in constraints]
    verdicts = [grade(doc["prompt"], response, names, kwargs, which=which) for response in results[0]]
    extracted = [answer_text(response).strip()[:80] or None for response in results[0]]
    return {
        **sample_metrics([all(verdict.loose) for verdict in verdicts], extracted),
        "prompt_strict": [all(verdict.strict) for verdict in verdicts],
        "prompt_loose": [all(verdict.loose) for verdict in verdicts],
        "instruction_strict": [kept for verdict in verdicts for kept in verdict.strict],
        "instruction_loose": [kept for verdict in verdicts for kept in verdict.loose],
    }


def share(problems: Sequence[Sequence[bool]]) -> float:
    """The share of true entries over all problems: constraints weigh the same wherever they stand."""
    return sum(sum(entries) for entries in problems) / sum(len(entries) for entries in problems)
