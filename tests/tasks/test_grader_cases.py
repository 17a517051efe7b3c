"""The graders on cases of our own, by kind; and the tables of docs/benchmarks.md that are made of them."""

import pytest

from harness.files import ROOT
from tasks.math_results import process_math_results, process_results
from tests.measure.grader_cases import OWN_CASES, errors, make_table, read_cases, verdict_of

CASES = read_cases(OWN_CASES)
KINDS = sorted({(case["task"], case["kind"]) for case in CASES})


@pytest.mark.parametrize(("task", "kind"), KINDS)
def test_every_case_of_a_kind_is_right(task, kind):
    group = [case for case in CASES if (case["task"], case["kind"]) == (task, kind)]
    assert [case["row"] for case in group if verdict_of(case) != case["right_verdict"]] == []


def test_the_table_of_the_document_is_the_scripts():
    assert make_table(CASES) in (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def test_errors_are_counted_by_direction():
    cases = [{"right_verdict": right} for right in (True, False, "A", None, "A", "A")]
    assert errors([False, True, "B", "C", None, "A"], cases) == (3, 2)


def test_both_graders_are_reported_and_one_counts():
    """A number with its percent sign, and an unfinished thought that math-verify credits."""
    results = [[r"\boxed{\frac{40}{2}}", r"<think>so \boxed{20}", r"\boxed{20\text{ trillion}}", r"\boxed{21}"]]
    ours, theirs = (process_math_results({"answer": "20"}, results, grader) for grader in ("strict", "official"))
    assert ours["correct"] == [1, 0, 0, 0] and theirs["correct"][:2] == [1, 1]
    assert ours["strict_score"] == theirs["strict_score"] == ours["avg_at_k"] == 0.25
    assert theirs["avg_at_k"] == ours["official_score"] == sum(theirs["correct"]) / 4
    different = sum(a != b for a, b in zip(ours["correct"], theirs["correct"], strict=True))
    assert ours["graders_differ"] == theirs["graders_differ"] == different / 4 > 0
    assert (ours["official_grader"], theirs["official_grader"]) == (0, 1)


def test_generated_arithmetic_has_one_grader():
    """Its published tables were made without a mode."""
    metrics = process_results({"answer": "7"}, [[r"\boxed{ 7 }", "7"]])
    assert metrics == {"avg_at_k": 0.5, "pass_at_k": 1.0, "maj_at_k": 1.0, "correct": [1, 0], "extracted": ["7", None]}
