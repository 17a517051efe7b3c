"""`process_results` of the tasks whose answer is a number or an expression: the bridge from lm-eval to the grader."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tasks.math_answer import Verdict, grade, grade_boxed, majority_is_correct
from tasks.sample_metrics import sample_metrics


def process_results(doc: Mapping[str, Any], results: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Grades the k responses to one problem whose answer is always boxed; lm-eval hands them over as `results[0]`."""
    return _metrics(grade_boxed, doc, results)


def process_math_results(doc: Mapping[str, Any], results: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Grades the k responses to one problem of a math benchmark, by mathematical equivalence."""
    return _metrics(grade, doc, results)


def _metrics(
    grader: Callable[[str, str], Verdict], doc: Mapping[str, Any], results: Sequence[Sequence[str]]
) -> dict[str, Any]:
    verdicts = [grader(response, doc["answer"]) for response in results[0]]
    extracted = [verdict.extracted for verdict in verdicts]
    return sample_metrics(
        [verdict.correct for verdict in verdicts], extracted, majority_is_correct(extracted, doc["answer"])
    )
