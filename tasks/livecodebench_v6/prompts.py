"""The prompts in common use for LiveCodeBench, as pairs of a system and a user message."""

from __future__ import annotations

_TASK = (
    "You will be given a question (problem specification) and will generate a correct Python program that matches the "
    "specification and passes all tests."
)
_SYSTEM = f"You are an expert Python programmer. {_TASK}"
_WITH_STARTER = (
    "You will use the following starter code to write the solution to the problem and enclose your code within "
    "delimiters."
)
_WITHOUT_STARTER = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
    "inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, it reads the "
    "inputs, runs the algorithm and writes output to STDOUT."
)

STYLES = ("generic", "r1")


def prompt(question: str, starter_code: str, style: str) -> tuple[str, str]:
    """System and user message.

    Args:
        style: "generic": the official one for chat models. "r1": no system message, as the DeepSeek-R1 models want it.
    """
    instruction = _WITH_STARTER if starter_code else _WITHOUT_STARTER
    program = f"```python\n{starter_code or '# YOUR CODE HERE'}\n```\n\n"
    if style == "generic":
        answer = "### Answer: (use the provided format with backticks)\n\n"
        return _SYSTEM, f"### Question:\n{question}\n\n### Format: {instruction}\n{program}{answer}"
    if style == "r1":
        return "", f"{_TASK}\n\nQuestion: {question}\n\n{instruction}\n{program}"
    raise ValueError(f"the prompt style must be one of {', '.join(STYLES)}, not {style!r}")
