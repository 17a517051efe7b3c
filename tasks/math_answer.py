"""The grader of math answers: pure functions from a response and a gold answer to a verdict. Mode `strict`, ours.

Numbers are equal when their exact values are ("025" = 25 = 25.0), lists, tuples, sets and matrices when their elements
are, and the rest when sympy shows it (tasks.math_equivalence). What stands beside a value is dropped only where it is a
unit, a currency, a label or an article (tasks.math_neighbours).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.math_comparison import compare
from tasks.math_extraction import after_thinking, final_answer, last_boxed
from tasks.math_forms import canonical

__all__ = [
    "Verdict",
    "after_thinking",
    "compare",
    "grade",
    "grade_boxed",
    "last_boxed",
    "majority_is_correct",
    "same_boxed",
]

Reason = Literal["equal", "different", "timeout", "no_answer", "unfinished_thinking"]


@dataclass(frozen=True)
class Verdict:
    """What the grader thinks of one response."""

    correct: bool
    extracted: str | None  # the answer as written; None: no answer was given
    reason: Reason


def grade(response: str, gold: str) -> Verdict:
    """Compares the response's final answer with `gold`. Thinking that was never finished gives no answer."""
    answer_text = after_thinking(response)
    if answer_text is None:
        return Verdict(False, None, "unfinished_thinking")
    extracted = final_answer(answer_text)
    if extracted is None:
        return Verdict(False, None, "no_answer")
    reason = compare(gold, extracted)
    return Verdict(reason == "equal", extracted, reason)


def grade_boxed(response: str, gold: str) -> Verdict:
    """Like `grade`, for tasks whose answers are numbers and always boxed: no statement without a box, no sympy."""
    answer_text = after_thinking(response)
    if answer_text is None:
        return Verdict(False, None, "unfinished_thinking")
    extracted = last_boxed(answer_text)
    if extracted is None:
        return Verdict(False, None, "no_answer")
    correct = same_boxed(gold, extracted)
    return Verdict(correct, extracted, "equal" if correct else "different")


def same_boxed(gold: str, answer: str) -> bool:
    """How `grade_boxed` compares."""
    return canonical(gold) == canonical(answer)


def majority_is_correct(
    answers: Sequence[str | None],
    gold: str,
    same: Callable[[str, str], bool] = lambda gold, answer: compare(gold, answer) == "equal",
) -> bool:
    """Whether the most frequent answer equals `gold`; answers that mean the same vote together.

    Samples without an answer do not vote; of equally frequent answers the one given first wins.
    """
    votes: list[tuple[str, int]] = []
    for answer in answers:
        if answer is None:
            continue
        for i, (candidate, count) in enumerate(votes):
            if same(candidate, answer):
                votes[i] = candidate, count + 1
                break
        else:
            votes.append((answer, 1))
    return bool(votes) and same(gold, max(votes, key=lambda vote: vote[1])[0])
