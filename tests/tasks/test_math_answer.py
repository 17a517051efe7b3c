"""tasks.math_answer: hand-made cases, and the parity set, whose verdicts were decided by mathematics or by a stated
policy.
"""

import json
import os
from pathlib import Path

import pytest

from tasks.math_answer import after_thinking, compare, grade, grade_boxed, last_boxed, majority_is_correct
from tasks.math_forms import canonical
from tasks.official import math_verdict

PARITY = [
    json.loads(line) for line in (Path(__file__).parents[1] / "data" / "math_parity.jsonl").read_text().splitlines()
]


@pytest.mark.parametrize(
    ("box", "gold"),
    [
        ("25", "025"),
        ("025", "25"),
        ("25.0", "25"),
        ("25.", "25"),
        (" 8 ", "8"),
        ("+7", "7"),
        ("-7", "-7"),
        ("−7", "-7"),
        ("- 7", "-7"),
        ("$25$", "25"),
        (r"\(25\)", "25"),
        (r"\text{25}", "25"),
        (r"\mathbf{\text{25}}", "25"),
        (r"\textbf{25}.", "25"),
        (r"45^\circ", "45"),
        (r"45^{\circ}", "45"),
        ("45°", "45"),
        (r"10\text{ cm}", "10"),
        (r"10 \, \mathrm{cm}^2", "10"),
        (r"10\ \text{square units}", "10"),
        ("10 cm", "10"),
        ("10 square units", "10"),
        (r"\$10", "10"),
        ("1,000", "1000"),
        ("1{,}000", "1000"),
        (r"1\,000", "1000"),
        ("12,345,678", "12345678"),
        ("x=25", "25"),
        ("m + n = 25", "25"),
        (r"N_{10} = 25", "25"),
        ("25 = x", "25"),
        (r"\displaystyle 25", "25"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        (r"\left(1,2\right)", "(1,2)"),
        ("50\\%", "0.5"),
    ],
)
def test_equal_answers(box, gold):
    assert grade(f"So the answer is $\\boxed{{{box}}}$.", gold).correct


@pytest.mark.parametrize(
    ("box", "gold"),
    [
        ("26", "25"),
        ("2 5", "25"),
        ("2,5", "25"),
        ("25,26", "25"),
        ("25x", "25"),
        ("25 or 26", "25"),
        (r"25\text{ or }26", "25"),
        ("25.0000000000000000000000001", "25"),
        ("50000000000000001", "50000000000000000"),
        ("-25", "25"),
        ("(25)", "5"),
        ("10^2", "10"),
        ("12,34", "1234"),
        (r"11_{\text{two}}", "11"),
        ("٢٥", "25"),
    ],
)
def test_different_answers(box, gold):
    verdict = grade(f"\\boxed{{{box}}}", gold)
    assert not verdict.correct and verdict.reason == "different"


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed {3}", "3"),
        (r"\fbox{3}", "3"),
        (r"\boxed{1} and then \boxed{2", "1"),
        (r"\boxed{2", None),
        (r"\boxed{}", None),
        (r"\boxed{ }", None),
        (r"boxed{2}", None),
        (r"} \boxed{2} {", "2"),
        (r"\boxed{1 \boxed{2} 3}", "2"),
        (r"\boxed{1 \boxed{2} 3", "2"),
        (r"\\\boxed{2}", "2"),
        (r"\\boxed{2}", "2"),
        ("", None),
    ],
)
def test_the_last_balanced_box(text, content):
    assert last_boxed(text) == content


def test_thinking():
    assert after_thinking("<think>a</think>b") == "b"
    assert after_thinking("a</think>b</think>c") == "c"  # the template opened it
    assert after_thinking("b") == "b"
    assert after_thinking("<think>a") is None
    assert after_thinking("<think>a</think>b<think>c") is None
    assert grade(r"<think>\boxed{25}", "25").reason == "unfinished_thinking"
    assert grade(r"<think>\boxed{25}</think>", "25").reason == "no_answer"
    assert grade(r"<think>\boxed{25}</think>\boxed{30}", "25").extracted == "30"


@pytest.mark.parametrize("case", PARITY, ids=[str(case["id"]) for case in PARITY])
def test_the_parity_set(case):
    """All 71 verdicts, none argued with. math-verify's own defaults disagree with eight of them."""
    verdict = grade(case["prediction"], case["gold"])
    assert verdict.correct == case["verdict"], (verdict, case["why"])


@pytest.mark.parametrize("case", PARITY, ids=[str(case["id"]) for case in PARITY])
def test_the_official_verdicts_of_the_parity_set(case):
    """What math-verify 0.9.0 said of the whole prediction when the set was made, with antlr 4.13.2."""
    assert math_verdict(case["prediction"], case["gold"]).correct == case["math_verify_0_9_default"]


# Beyond the parity set, by the same rules: (gold, answer)
EQUAL = [
    ("-1", r"e^{i\pi}"),
    (r"\emptyset", r"\varnothing"),
    ("25", r"\textbf{(C) } 25"),
    ("C", r"\textbf{(C) } 25"),
    (r"\text{(C)}", "C"),
    ("C", "(C)"),
    ("25", r"\text{The answer is } 25"),
    ("25", "the answer is 25"),
    ("25", r"\text{There are } 25 \text{ ways}"),
    ("25", r"\approx 25"),
    ("50\\%", "50"),  # the unit may be left out
    ("50\\%", "50 percent"),
    ("50\\%", r"\frac{1}{2}"),
    ("50", "50\\%"),  # as the graders of Hendrycks and of Qwen have it
    ("12.5", r"12.5\%"),
    ("0.2", r"20\%"),  # as math-verify has it
    ("x > 2", r"(2,\infty)"),
    (r"(2,\infty)", "x > 2"),
    ("(1,2)", "1<x<2"),
    (r"x \in [-2,7]", "[-2,7]"),
    ("[-2,7]", r"x \in [-2,7]"),
    ("2,-2", r"\pm 2"),
    ("1,2", r"1 \text{ and } 2"),
    ("1,2", r"x=1 \text{ or } x=2"),
    ("y = 2x + 3", "2x+3"),
    ("y = 2x + 3", "y=3+2x"),
    ("y = 2x + 3", "2x-y+3=0"),
    ("5x - 7y + 11z + 4 = 0", "11z + 5x - 7y + 4 = 0"),
    ("f(x) = x^2", "x^2"),
    (r"\frac{1}{3}", r"0.\overline{3}"),
    (r"\frac{1}{6}", r"0.1\overline{6}"),
    (r"11,\! 111,\! 111,\! 100", "11111111100"),
    (r"\$32,\!348", "32348"),
    (r"864 \mbox{ inches}^2", "864"),
    (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}"),
    (r"\{1\pm\sqrt{5},-2\}", r"\{-2, 1+\sqrt{5}, 1-\sqrt{5}\}"),
    (r"\begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix}", r"\begin{pmatrix} 0.2 \\ -3.6 \end{pmatrix}"),
    (r"137 \frac{1}{2}", "137.5"),
    (".0000672", r"6.72 \times 10^{-5}"),
    ("2516_8", "2516_{8}"),
    ("2516_8", r"2516_{\text{eight}}"),
    ("1358", "2516_8"),
    ("6 - 5i", "-5i+6"),
    (r"\text{Navin}", "navin"),
    (r"\cot x", r"\frac{\cos x}{\sin x}"),
    ("ab", "ba"),
    ("25", r"25\,"),
    ("25", "25~"),
    ("10", r"{5 \choose 2}"),
    ("5", r"{\bf 5}"),
    ("3+4i", r"3+4\mathrm{i}"),
    ("2i + 5j", r"2\mathbf{i} + 5\mathbf{j}"),
    ("4", r"4\,\mathrm{m}"),
]
DIFFERENT = [
    (r"\sqrt{2}", "1.4142135623730951"),
    (r"\pi", "3.14159265358979"),
    (r"\frac{1}{3}", "0.333333333"),
    ("0.3", "0.30000000001"),
    ("0.30000001", "0.1+0.2"),
    ("0.2", r"0.2\%"),
    ("2", r"20\%"),
    ("0.5", "50"),
    ("101_2", "101"),
    ("101", "101_2"),
    ("2516_8", "2516_9"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    ("1,2", "1"),
    ("1", "1,2"),
    ("x=5", "y=5"),
    ("x^2+y^2=1", "1"),
    (r"\text{silent}", "listen"),
    (r"\text{silent}", r"\text{listen}"),
    ("25", "25 or 26"),
    ("25", "at least 25"),
    ("25", "not 25"),
    ("25", r"25 \bmod 37"),
    ("25", "25!"),
    ("25", r"\text{between 20 and } 25"),
    ("25", "1, 025"),
    ("25", r"\text{(C) 26}"),
    ("25", "C"),
    ("1000", "1 000"),
    ("1000", "1, 000"),
    ("1,5", "1.5"),
    ("4", r"4\mathrm{i}"),
    ("4", r"4\mathbf{x}"),
    ("10", r"10 \text{ million}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
]


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_by_mathematics(gold, answer):
    assert grade(f"$\\boxed{{{answer}}}$", gold).correct
    assert compare(gold, gold) == "equal"


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_different_by_mathematics(gold, answer):
    assert grade(f"$\\boxed{{{answer}}}$", gold).reason == "different"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("**Answer: 25**", "25"),
        ("**Answer:** 25", "25"),
        ("The final answer is: $25$. I hope it is correct.", "25"),
        (r"The answer is \(\frac{1}{2}\).", r"\frac{1}{2}"),
        ("The answer is 26. No: the answer is 25.", "25"),
        ("The answer is 3.5 because of this.", "3.5"),
        ("The answer is 25, since 5*5=25", "25"),
        ("The answer is 24 or 25", "24 or 25"),
        ("So\n\\[\nx = 25\n\\]", "25"),
        (r"$\boxed25$", "25"),
        (r"<think>\boxed{24}</think>I am done", None),
        ("9*2 = 18 every day.\n#### 18", "18"),
        ("So we get x = 25", "25"),
        ("So we get $x = 25$.", "25"),
        ("25", "25"),
        ("25<|im_end|>\n", "25"),
        ("Adding both gives 25.", "25"),
        ("There are 25 of them.", "25"),
        ("First 3, then 4.", None),
        ("I do not know.", None),
        ("boxed{25", None),
        (r"The answer is \boxed{25", None),
        (r"The answer is \boxed{}", None),
        (r"\boxed 25", "25"),
        (r"\boxed{24} The answer is 25", "24"),
    ],
)
def test_an_answer_without_a_box(text, answer):
    assert grade(text, "25").extracted == answer


def test_the_grader_of_boxed_numbers_takes_nothing_else():
    assert grade_boxed(r"\boxed{ 8 }", "8").correct
    assert not grade_boxed(r"\boxed{4+4}", "8").correct
    assert grade_boxed("The answer is 8", "8").reason == "no_answer"
    assert grade_boxed(r"<think>\boxed{8}", "8").reason == "unfinished_thinking"


def test_long_responses_cost_little():
    assert not grade(r"\boxed{" + "9" * 100_000 + "}", "25").correct
    assert not grade(r"\boxed{" * 2_000, "25").correct
    assert not grade(r"\boxed{" + "{" * 100_000 + "}", "25").correct
    assert not grade(r"\boxed{" + "1" + r"\text{ a}" * 20_000 + "}", "25").correct
    assert not grade(r"\boxed{" + " " * 100_000 + "1 a}", "25").correct
    for text in ("answer " * 50_000, "= " * 100_000, "$" * 100_000, "is 1 " * 50_000, "#" * 100_000, "<|" * 50_000):
        assert not grade(text, "25").correct
    for box in (
        "a" * 1900,
        "1" * 1900,
        " 1" * 900,
        "a=" * 900,
        r"\text{a}" * 240,
        "(" * 1900,
        "a b " * 450,
        "1a " * 600,
    ):
        assert not grade(r"\boxed{" + box + "}", "25").correct


def test_the_majority_is_taken_over_equal_values():
    assert majority_is_correct(["25", "026", "25.0"], "025")
    assert not majority_is_correct(["26", "25", "026"], "25")
    assert majority_is_correct(["25", "26"], "25")  # of equal counts the first
    assert majority_is_correct([None, None, "25"], "25")
    assert not majority_is_correct([None, None], "25")
    assert majority_is_correct([r"\frac{1}{2}", r"\frac{1}{3}", r"\sqrt{\frac14}", "3"], "0.5")
    assert canonical("1,000") == canonical("1000.0") == "1000"


@pytest.mark.skipif("BENCHMARK_DATA" not in os.environ, reason="BENCHMARK_DATA does not name a folder with the sets")
@pytest.mark.parametrize("name", ["math500", "gsm8k"])
def test_the_reference_solutions_are_correct(name):
    """They are written by people, box their answers (or end in "#### 18"), and are graded like responses."""
    path = Path(os.environ["BENCHMARK_DATA"]) / name / "test.jsonl"
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        solution, gold = row.get("solution", row["answer"]), row["answer"].rpartition("#### ")[2]
        assert grade(solution, gold).correct, (gold, grade(solution, gold))
