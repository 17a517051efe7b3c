"""Answers that the length limit cut off are said where they are nearly all."""

from __future__ import annotations

from harness.results.cut_off import scored_lines, trained_line
from harness.results.record import Evaluation


def scored(task: str, share: float) -> Evaluation:
    """A score of which so much was cut off."""
    return Evaluation(
        task, "p" * 64, problems=2, samples=1, score=0.0, truncated_frac=share, mean_tokens=8, correct=(0,)
    )


def test_of_an_evaluation() -> None:
    assert scored_lines("opd seed0", [scored("gsm8k", 1.0), scored("math500", 0.89)]) == [
        "opd seed0, gsm8k: 100 % of the answers were cut off at the length limit; raise evaluation.max_new_tokens."
    ]


def test_of_a_training() -> None:
    """Shares 1, 0.9 and 0.8 are 0.9 in the mean; 0.5 more in a fourth step is less."""
    rows = [{"truncated_frac": share} for share in (1.0, 0.9, 0.8)]
    assert trained_line("opd seed0", rows) == [
        "opd seed0: 90 % of the completions were cut off in training; raise setting.max_new_tokens."
    ]
    assert trained_line("opd seed0", [*rows, {"truncated_frac": 0.5}]) == trained_line("opd seed0", []) == []
