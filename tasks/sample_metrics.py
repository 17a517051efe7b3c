"""From the graded samples of one problem to the metrics of a task. What every task's `process_results` returns.

Besides its scores a task reports its samples: `correct` (0 or 1 each) and `extracted` (the answer of each, or None).
lm-eval keeps both in its log of samples, which is where per-sample rows come from.
"""

from collections.abc import Sequence
from typing import Any, Literal

Grader = Literal["strict", "official"]
GRADERS: tuple[Grader, ...] = ("strict", "official")  # ours, the default, and the one behind published numbers


def sample_metrics(
    correct: Sequence[bool], extracted: Sequence[str | None], majority_correct: bool | None = None
) -> dict[str, Any]:
    """The metrics of one problem with k samples; `majority_correct` is None where the answers cannot be voted on."""
    metrics: dict[str, Any] = {
        "avg_at_k": sum(correct) / len(correct),
        "pass_at_k": float(any(correct)),  # k of k samples: the unbiased estimate is whether any is right
        "correct": [int(value) for value in correct],
        "extracted": list(extracted),
    }
    if majority_correct is not None:
        metrics["maj_at_k"] = float(majority_correct)
    return metrics


def grader_metrics(grader: Grader, strict: Sequence[bool], official: Sequence[bool]) -> dict[str, float]:
    """What the choice of the grader does to the score of one problem: both scores, and how many
    answers they differ on.
    """
    return {
        "strict_score": sum(strict) / len(strict),
        "official_score": sum(official) / len(official),
        "graders_differ": sum(ours != theirs for ours, theirs in zip(strict, official, strict=True)) / len(strict),
        "official_grader": float(grader == "official"),  # whether the score is the official one
    }


def total_correct(problems: Sequence[Sequence[int]]) -> int:
    """How `correct` is aggregated: the number of correct samples of the task."""
    return sum(sum(samples) for samples in problems)


def answered_frac(problems: Sequence[Sequence[str | None]]) -> float:
    """How `extracted` is aggregated: the share of samples that gave an answer."""
    answers = [answer for samples in problems for answer in samples]
    return sum(answer is not None for answer in answers) / len(answers)
