"""`process_results` of the multiple-choice tasks: the bridge from lm-eval to the grader."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.choice_answer import LETTERS, grade, majority_letter_is_correct
from tasks.sample_metrics import sample_metrics


def process_results(doc: Mapping[str, Any], results: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Grades the k responses to one question; lm-eval hands them over as `results[0]`."""
    verdicts = [grade(response, doc["answer"]) for response in results[0]]
    letters = [verdict.extracted for verdict in verdicts]
    return sample_metrics(
        [verdict.correct for verdict in verdicts], letters, majority_letter_is_correct(letters, doc["answer"])
    )


def process_permuted_results(doc: Mapping[str, Any], results: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Grades the responses to one question under one order of its options.

    A majority cannot be taken here: the repeats of the question are other documents. `votes` says which option of the
    original order each response chose, so that the driver can.
    """
    verdicts = [grade(response, doc["answer"]) for response in results[0]]
    letters = [verdict.extracted for verdict in verdicts]
    votes = [None if letter is None else doc["order"][LETTERS.index(letter)] for letter in letters]
    metrics = sample_metrics([verdict.correct for verdict in verdicts], letters)
    del metrics["pass_at_k"]  # of a document, which is one repeat
    return {**metrics, "votes": votes}
