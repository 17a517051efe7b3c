"""Rows of multiple choice, GPQA or any other with options A to D: compares the letter of a response
with the gold one.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tasks.choice_answer import accepted_letters, grade
from tasks.official import choice_verdict
from tasks.row_graders.fields import grader_of, text_of

GRADES_LIKE = ("tasks.choice_results.process_results", "tasks.choice_results.process_permuted_results")
FIELDS = '{"response", "answer": a letter} -> {"correct", "extracted", "reason"}'
OPTIONS = {"grader": "strict"}  # or official: simple-evals' first "Answer: X"


def make_grader(options: Mapping[str, str]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The grader of the mode that is asked for."""
    decide = {"strict": grade, "official": choice_verdict}[grader_of(options)]

    def grade_row(row: Mapping[str, Any]) -> dict[str, Any]:
        answer = accepted_letters(text_of(row, "answer"))  # before the response: a bad gold is a bad row either way
        verdict = decide(text_of(row, "response"), answer)
        return {"correct": verdict.correct, "extracted": verdict.extracted, "reason": verdict.reason}

    return grade_row
