"""`process_results` of every task whose answer is a boxed number: the bridge from lm-eval to the grader."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.math_answer import grade, majority_is_correct
from tasks.sample_metrics import sample_metrics


def process_results(doc: Mapping[str, Any], results: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Grades the k responses to one problem; lm-eval hands them over as `results[0]`."""
    verdicts = [grade(response, doc["answer"]) for response in results[0]]
    extracted = [verdict.extracted for verdict in verdicts]
    return sample_metrics(
        [verdict.correct for verdict in verdicts], extracted, majority_is_correct(extracted, doc["answer"])
    )
