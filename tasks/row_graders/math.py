"""Rows of math: compares the final answer of a response with a gold answer."""

from collections.abc import Callable, Mapping
from typing import Any

from tasks.math_answer import grade
from tasks.official import math_verdict
from tasks.row_graders.fields import answer_of, grader_of, text_of

GRADES_LIKE = ("tasks.math_results.process_math_results",)
FIELDS = '{"response", "answer"} -> {"correct", "extracted", "reason"}'
OPTIONS = {"grader": "strict"}  # or official: math-verify's defaults


def make_grader(options: Mapping[str, str]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The grader of the mode that is asked for."""
    decide = {"strict": grade, "official": math_verdict}[grader_of(options)]

    def grade_row(row: Mapping[str, Any]) -> dict[str, Any]:
        answer = answer_of(row)
        if not answer.strip():
            raise ValueError("the field 'answer' is empty")
        verdict = decide(text_of(row, "response"), answer)
        return {"correct": verdict.correct, "extracted": verdict.extracted, "reason": verdict.reason}

    return grade_row
