"""`process_results` of the tasks whose answer is a number or an expression: the bridge from lm-eval to the graders."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.math_answer import grade, grade_boxed, majority_is_correct, same_boxed
from tasks.official import math_verdict
from tasks.sample_metrics import Grader, grader_metrics, sample_metrics


def process_results(doc: Mapping[str, Any], results: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Grades the k responses to one problem whose answer is always boxed; lm-eval hands them over as `results[0]`."""
    verdicts = [grade_boxed(response, doc["answer"]) for response in results[0]]
    extracted = [verdict.extracted for verdict in verdicts]
    return sample_metrics(
        [verdict.correct for verdict in verdicts], extracted, majority_is_correct(extracted, doc["answer"], same_boxed)
    )


def process_math_results(
    doc: Mapping[str, Any], results: Sequence[Sequence[str]], grader: Grader = "strict"
) -> dict[str, Any]:
    """Grades the k responses to one problem of a math benchmark by both graders; `grader` names the one that counts.

    Votes are on our reading of the answers in either mode: math-verify has none.
    """
    gold, responses = doc["answer"], results[0]
    ours = [grade(response, gold) for response in responses]
    strict = [verdict.correct for verdict in ours]
    official = [math_verdict(response, gold).correct for response in responses]
    extracted = [verdict.extracted for verdict in ours]
    majority = majority_is_correct(extracted, gold)
    chosen = strict if grader == "strict" else official
    return {**sample_metrics(chosen, extracted, majority), **grader_metrics(grader, strict, official)}
