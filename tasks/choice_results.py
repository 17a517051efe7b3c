"""`process_results` of the multiple-choice tasks: the bridge from lm-eval to the graders."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.choice_answer import LETTERS, Verdict, grade, majority_letter_is_correct
from tasks.official import choice_verdict
from tasks.sample_metrics import Grader, grader_metrics, sample_metrics


def process_results(
    doc: Mapping[str, Any], results: Sequence[Sequence[str]], grader: Grader = "strict"
) -> dict[str, Any]:
    """Grades the k responses to one question by both graders; lm-eval hands them over as `results[0]`.

    `grader` names the one that counts.
    """
    verdicts, compared = _graded(results[0], doc["answer"], grader)
    letters = [verdict.extracted for verdict in verdicts]
    correct = [verdict.correct for verdict in verdicts]
    return {**sample_metrics(correct, letters, majority_letter_is_correct(letters, doc["answer"])), **compared}


def process_permuted_results(
    doc: Mapping[str, Any], results: Sequence[Sequence[str]], grader: Grader = "strict"
) -> dict[str, Any]:
    """Grades the responses to one question under one order of its options.

    A majority cannot be taken here: the repeats of the question are other documents. `votes` says which option of the
    original order each response chose, so that the driver can.
    """
    verdicts, compared = _graded(results[0], doc["answer"], grader)
    letters = [verdict.extracted for verdict in verdicts]
    votes = [None if letter is None else doc["order"][LETTERS.index(letter)] for letter in letters]
    metrics = sample_metrics([verdict.correct for verdict in verdicts], letters)
    del metrics["pass_at_k"]  # of a document, which is one repeat
    return {**metrics, "votes": votes, **compared}


def _graded(responses: Sequence[str], gold: str, grader: Grader) -> tuple[list[Verdict], dict[str, float]]:
    """The verdicts that count, and what the graders' difference is."""
    strict = [grade(response, gold) for response in responses]
    official = [choice_verdict(response, gold) for response in responses]
    compared = grader_metrics(grader, [ours.correct for ours in strict], [theirs.correct for theirs in official])
    return strict if grader == "strict" else official, compared
