"""No answer ends an evaluation: whatever a response is, every grader gives a verdict, and before long."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tasks.choice_results import process_results as choice_results
from tasks.ifbench import resources
from tasks.ifbench.checkers import checkers
from tasks.ifbench.results import process_results as ifbench_results
from tasks.math_results import process_math_results, process_results

TEST_DATA = Path(__file__).parents[1] / "data"
MANY = 100_000  # of a mark that a response repeats; 32,768 tokens of blanks are more
LONGEST_S = 60.0  # math-verify has 5 s of processor time for a pair, and a response is a pair in two or three readings

LONG = {"tower", "factorial", "boxes", "braces", "answer_and_blanks"}  # 5 s and more each

RESPONSES = {
    "empty": "",
    "newlines": "\n" * 3 * MANY + "x",
    "blanks": " " * 3 * MANY + "x",
    "answer_and_blanks": "answer is 1" + " " * 3 * MANY + "x",
    "special_tokens": "<|a|>" * MANY + "x",
    "opened_tokens": "<|" * MANY,
    "boxes": r"\boxed{" * MANY,
    "braces": r"\boxed{" + "{" * MANY + "}" * MANY + "}",
    "answers": "the answer is " * (MANY // 10),
    "equations": "answer: " + "= " * MANY,
    "dollars": "$a" * MANY,
    "hashes": "#### " * MANY,
    "digits": r"\boxed{" + "9" * MANY + "}",
    "exponent": r"\boxed{1e999999999}",
    "tower": r"\boxed{9^{9^{9}}}",
    "factorial": r"\boxed{((99!)!)!}",
    "fractions": r"\boxed{" + r"\frac{1}{" * 300 + "2" + "}" * 300 + "}",
    "thoughts": "<think>" * MANY,
    "half_a_character": "\ud800\\boxed{\ud800}",
    "zeros": "\0" * MANY,
    "letters": "Answer: A or " * (MANY // 10),
    "options": "answer: " + "(" * MANY,
}
GRADERS = {
    "boxed": (process_results, {"answer": "5"}),
    "math": (process_math_results, {"answer": r"\frac{1}{2}"}),
    "choice": (choice_results, {"answer": "B"}),
}


@pytest.mark.parametrize(
    "response",
    [pytest.param(text, id=name, marks=[pytest.mark.slow] * (name in LONG)) for name, text in RESPONSES.items()],
)
@pytest.mark.parametrize("grader", GRADERS)
def test_every_response_gets_a_verdict(grader: str, response: str):
    process, doc = GRADERS[grader]
    began = time.monotonic()
    metrics = process(doc, [[response, "I do not know."]])
    assert time.monotonic() - began < LONGEST_S
    assert metrics["correct"] == [0, 0]


def test_every_constraint_of_ifbench_gives_a_verdict():
    """On short ones of these: the library takes milliseconds a sentence, but not more for having more of them."""
    resources.require_nltk_data(os.environ.get("BENCHMARK_DATA") or str(TEST_DATA))
    rows = [json.loads(line) for line in (TEST_DATA / "ifbench_rows.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = {name: (row, n) for row in rows for n, name in enumerate(row["instruction_id_list"])}
    assert rows.keys() == checkers().keys()
    for name, (row, n) in rows.items():
        constraints = json.dumps([{"id": name, "kwargs": row["kwargs"][n]}])
        responses = [response[:500] + response[-1:] for response in RESPONSES.values()]
        metrics = ifbench_results({"constraints": constraints, "prompt": row["prompt"]}, [responses])
        assert len(metrics["correct"]) == len(responses), name
