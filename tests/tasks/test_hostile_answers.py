"""No answer ends an evaluation: whatever a response is, every grader gives a verdict, and before long."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path

import pytest

from tasks.choice_results import process_results as choice_results
from tasks.ifbench import resources
from tasks.ifbench.checkers import checkers
from tasks.ifbench.results import process_results as ifbench_results
from tasks.math_answer import grade
from tasks.math_results import process_math_results, process_results
from tasks.math_worker import CPU_SECONDS

TEST_DATA = Path(__file__).parents[1] / "data"
MANY = 100_000  # of a mark that a response repeats; 32,768 tokens of blanks are more
START_S = 5.0  # processor time of a worker's imports
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


# Notation that a response nests or repeats, and the gold answer beside it: what the strict grader must not sink into
NOTATION = {
    "power_beside_a_power": (r"2^{10000000}+1", r"2^{10000000}"),
    "roots": (r"\sqrt{" * 300 + "2" + "}" * 300, r"\sqrt{2}"),
    "powers": ("2^{" * 300 + "2" + "}" * 300, "4"),
    "brackets": ("(" * 3000 + "1" + ")" * 3000, "2"),
    "texts": (r"\text{" * 3000 + "a" + "}" * 3000, "7"),
    "sum": (r"\sum_{k=1}^{10^{12}} \frac{1}{k}", "7"),
    "list": (",".join(map(str, range(20_000))), ",".join(map(str, range(20_000, 0, -1)))),
    "thousands": ("1,000" * 20_000, "7"),
    "mixed_numbers": ("1 2/3 " * 20_000, "7"),
}
# Several hard questions in one answer cost what one does.
TOWERS = r"9^{9^{9}}, 9^{9^{8}}, 8^{9^{9}}", r"\sqrt{2},\sqrt{3},\sqrt{5}"


@pytest.mark.parametrize("name", NOTATION)
def test_nested_and_repeated_notation_is_read_at_once(name: str):
    answer, gold = NOTATION[name]
    began = time.process_time()
    assert not grade(rf"\boxed{{{answer}}}", gold).correct
    assert time.process_time() - began < CPU_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("pair", [*NOTATION.values(), TOWERS], ids=[*NOTATION, "towers"])
def test_both_graders_answer_within_their_limits(pair: tuple[str, str]):
    answer, gold = pair
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    metrics = process_math_results({"answer": gold}, [[rf"\boxed{{{answer}}}"]])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert metrics["correct"] == [0]
    # a worker that ran into its limit is gone, and its time is known; two questions at the most, and two starts
    assert after.ru_utime - before.ru_utime < 2 * (CPU_SECONDS + START_S)


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
