"""tasks.math_answer: hand-made cases; the gold answers are integers, as in the benchmarks that use it."""

import pytest

from tasks.math_answer import after_thinking, canonical, grade, last_boxed, majority_is_correct


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
    assert grade(r"<think>\boxed{25}</think>", "25").reason == "no_box"
    assert grade(r"<think>\boxed{25}</think>\boxed{30}", "25").extracted == "30"


def test_long_responses_cost_little():
    assert not grade(r"\boxed{" + "9" * 100_000 + "}", "25").correct
    assert not grade(r"\boxed{" * 2_000, "25").correct
    assert not grade(r"\boxed{" + "{" * 100_000 + "}", "25").correct
    assert not grade(r"\boxed{" + "1" + r"\text{ a}" * 20_000 + "}", "25").correct
    assert not grade(r"\boxed{" + " " * 100_000 + "1 a}", "25").correct


def test_the_majority_is_taken_over_equal_values():
    assert majority_is_correct(["25", "026", "25.0"], "025")
    assert not majority_is_correct(["26", "25", "026"], "25")
    assert majority_is_correct(["25", "26"], "25")  # of equal counts the first
    assert majority_is_correct([None, None, "25"], "25")
    assert not majority_is_correct([None, None], "25")
    assert canonical("1,000") == canonical("1000.0") == "1000"
