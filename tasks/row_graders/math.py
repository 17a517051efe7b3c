"""Rows of math: compares the final answer of a response with a gold answer."""

from collections.abc import Callable, Mapping
from typing import Any

from tasks.math_answer import grade
from tasks.row_graders.fields import answer_of, text_of

FIELDS = '{"response", "answer"} -> {"correct", "extracted", "reason"}'
OPTIONS: dict[str, str] = {}


def make_grader(options: Mapping[str, str]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The grader; it has no options."""
    return grade_row


def grade_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One verdict."""
    answer = answer_of(row)
    if not answer.strip():
        raise ValueError("the field 'answer' is empty")
    verdict = grade(text_of(row, "response"), answer)
    return {"correct": verdict.correct, "extracted": verdict.extracted, "reason": verdict.reason}
