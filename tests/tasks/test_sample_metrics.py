"""tasks.sample_metrics and tasks.math_results: the metrics of one problem, and their sums."""

from tasks.math_results import process_results
from tasks.sample_metrics import answered_frac, sample_metrics, total_correct


def test_metrics_of_one_problem():
    responses = [r"\boxed{8}", r"\boxed{9}", r"\boxed{08}", "none"]
    assert process_results({"answer": "8"}, [responses]) == {
        "avg_at_k": 0.5,
        "pass_at_k": 1.0,
        "maj_at_k": 1.0,
        "correct": [1, 0, 1, 0],
        "extracted": ["8", "9", "08", None],
    }


def test_a_task_whose_answers_cannot_be_voted_on_has_no_majority():
    assert "maj_at_k" not in sample_metrics([True], [None])


def test_aggregations():
    assert total_correct([[1, 0], [1, 1]]) == 3
    assert answered_frac([["8", None], [None, None]]) == 0.25
