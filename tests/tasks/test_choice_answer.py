"""tasks.choice_answer: the accepted forms, and what is none of them."""

import pytest

from tasks.choice_answer import accepted_letters, grade, last_letter, majority_letter_is_correct
from tasks.choice_results import process_permuted_results, process_results
from tasks.official import choice_verdict


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{B}",
        r"$\boxed{\text{B}}$",
        r"\boxed{\textbf{(B)}}",
        r"\boxed{(B)}",
        r"\boxed{B.}",
        r"\boxed{B) newton}",
        r"\boxed{\text{Option B}}",
        "Answer: 'B'",
        'The answer is "B".',
        r"\fbox{b}",
        "Answer: B",
        "Answer:B",
        "answer: b",
        "Answer: $B$",
        "Answer: $B",
        "**Answer: B**",
        "**Answer:** B",
        "**Answer**: **B**",
        "Answer: (B)",
        "Answer: B) newton",
        "Answer: B. newton",
        r"Answer: \boxed{B}",
        r"Answer: $\boxed{\text{B}}$",
        r"Answer: \(B\)",
        "Answer:\nB",
        "Final Answer: B",
        "The answer is B.",
        "The answer is (B).",
        "The answer is (b).",
        "The answer is **B**",
        "The correct answer is option B",
        "So the correct option is B.",
        "the correct choice is: B",
        "Answer: A\nNo, wait.\nAnswer: B",
        r"\boxed{A} is wrong. Answer: B",
        r"The answer is A? No: \boxed{B}",
        "B",
        "(B)",
        "**B**",
        "B.",
        "I think it is the newton.\n\nB",
        "<think>Answer: A</think>Answer: B",
        "Answer: A</think>\n\nB",
    ],
)
def test_accepted_forms(text):
    assert grade(text, "B").extracted == "B" and grade(text, "B").correct and not grade(text, "C").correct


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I do not know.",
        "Answer: Actually, none",
        "Answer: newton",
        "Answer: $LETTER",
        "Answer: E",
        "The answer is a number.",
        "The answer is A's",
        "A and B",
        "Answer: A or B",
        "Answer: A, B",
        "The answer is (A) and (C).",
        r"\boxed{A, B}",
        r"\boxed{}",
        "A newton is a unit.",
        "Every option is wrong.",
    ],
)
def test_no_answer(text):
    assert grade(text, "A").reason == "no_answer"


def test_thinking_that_was_not_finished_is_no_answer():
    assert grade("<think>Answer: A", "A").reason == "unfinished_thinking"
    assert grade("<think>Answer: A</think>", "A").reason == "no_answer"


def test_golds():
    assert accepted_letters("(b)") == "B" and accepted_letters("AC") == "AC"
    assert grade("Answer: C", "AC").correct
    with pytest.raises(ValueError, match="one of A, B, C, D, not 'newton'"):
        grade("Answer: A", "newton")


def test_long_responses_cost_little():
    for text in (
        "Answer: " * 20_000,
        "answer is ( " * 20_000,
        "(" * 100_000,
        r"\boxed{" * 20_000,
        "* " * 100_000,
        "A, " * 50_000,
    ):
        assert last_letter(text) is None


def test_the_official_grader_takes_the_first_label_and_reads_nothing_else():
    """simple-evals: a regular expression on the whole response."""
    assert choice_verdict("Answer: A\nNo, wait.\nAnswer: B", "B").extracted == "A"
    assert choice_verdict("<think>Answer: C</think>Answer: B", "B").extracted == "C"
    assert choice_verdict("Answer: Actually none", "A").correct  # the A of "Actually"
    assert choice_verdict(r"\boxed{B}", "B").reason == "no_answer"
    assert choice_verdict("answer : $b$", "B").correct


def test_metrics_of_one_question():
    responses = ["Answer: B", "Answer: C", "Answer: B", "none"]
    assert process_results({"answer": "B"}, [responses]) == {
        "avg_at_k": 0.5,
        "pass_at_k": 1.0,
        "maj_at_k": 1.0,
        "correct": [1, 0, 1, 0],
        "extracted": ["B", "C", "B", None],
        "strict_score": 0.5,
        "official_score": 0.5,
        "graders_differ": 0.0,
        "official_grader": 0.0,
    }
    differing = [["Answer: A, no. Answer: B", r"\boxed{B}"]]  # right and right for us, wrong and none for simple-evals
    ours = process_results({"answer": "B"}, differing)
    theirs = process_results({"answer": "B"}, differing, grader="official")
    assert (ours["correct"], theirs["correct"], theirs["extracted"]) == ([1, 1], [0, 0], ["A", None])
    for metrics in (ours, theirs):
        assert (metrics["strict_score"], metrics["official_score"], metrics["graders_differ"]) == (1.0, 0.0, 1.0)
    assert (ours["official_grader"], theirs["official_grader"], ours["avg_at_k"], theirs["avg_at_k"]) == (0, 1, 1, 0)
    permuted = process_permuted_results({"answer": "B", "order": [2, 0, 3, 1]}, [["Answer: A", "none"]])
    assert permuted["votes"] == [2, None] and permuted["correct"] == [0, 0]
    assert not majority_letter_is_correct([None, None], "A")
    assert majority_letter_is_correct(["A", "B"], "A")
