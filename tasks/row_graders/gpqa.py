"""Rows of multiple choice, GPQA or any other with options A to D: compares the letter of a response with the gold one."""

from collections.abc import Callable, Mapping
from typing import Any

from tasks.choice_answer import accepted_letters, grade
from tasks.row_graders.fields import text_of

FIELDS = '{"response", "answer": a letter} -> {"correct", "extracted", "reason"}'
OPTIONS: dict[str, str] = {}


def make_grader(options: Mapping[str, str]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The grader; it has no options."""
    return grade_row


def grade_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One verdict."""
    answer = accepted_letters(text_of(row, "answer"))  # before the response: a bad gold is a bad row either way
    verdict = grade(text_of(row, "response"), answer)
    return {"correct": verdict.correct, "extracted": verdict.extracted, "reason": verdict.reason}
