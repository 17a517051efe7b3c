"""The arithmetic task: problems, their three disjoint splits, and the data files made from them.

`Start with 6 , add 5 , times 9 , subtract 5 . What is the result mod 1 0 ?` has 3 to 5 operations on one-digit numbers.
The split is a function of the problem's own text (its md5), so a problem can never be in two of them, whoever draws it
and with whatever seed.

Only `Random.random()` is drawn from: it is the one method whose sequence Python promises to keep, and the data files
are committed.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeVar

from harness.seeds import seed_of

MODULUS = 10
MIN_OPERATIONS, MAX_OPERATIONS = 3, 5
OPERATION_WORDS = {"+": "add", "-": "subtract", "*": "times"}
_OPERATION_DRAW = "++--*"  # few products: they pull the running value to 0
_SPLIT_BUCKETS = 10  # 10 % test, 10 % development, the rest training

Split = Literal["train", "development", "test"]
Fact = tuple[int, str, int]  # (running value, operation, operand)
T = TypeVar("T")


def pick(rng: Random, options: Sequence[T]) -> T:
    """One of the options, uniformly."""
    return options[int(rng.random() * len(options))]


def compute(value: int, operation: str, operand: int) -> int:
    """One step of the calculation, modulo 10."""
    result = {"+": value + operand, "-": value - operand, "*": value * operand}[operation]
    return result % MODULUS


@dataclass(frozen=True)
class Problem:
    """A start value and the operations on it, in order."""

    start: int
    operations: tuple[tuple[str, int], ...]

    @property
    def text(self) -> str:
        """The user's message: every digit and sign is a word of its own."""
        steps = " ".join(f", {OPERATION_WORDS[operation]} {operand}" for operation, operand in self.operations)
        return f"Start with {self.start} {steps} . What is the result mod 1 0 ?"

    @property
    def answer(self) -> int:
        value = self.start
        for operation, operand in self.operations:
            value = compute(value, operation, operand)
        return value

    @property
    def split(self) -> Split:
        bucket = int(hashlib.md5(self.text.encode(), usedforsecurity=False).hexdigest(), 16) % _SPLIT_BUCKETS
        return "test" if bucket == 0 else "development" if bucket == 1 else "train"


def operands_of(operation: str) -> range:
    """Multiplying by 1 and adding 0 are left out: they would change nothing."""
    return range(2 if operation == "*" else 1, 10)


def draw_problem(rng: Random, split: Split, operations: int | None = None) -> Problem:
    """A random problem of one split, with the given number of operations (None: 3 to 5)."""
    while True:
        length = operations or pick(rng, range(MIN_OPERATIONS, MAX_OPERATIONS + 1))
        start = pick(rng, range(MODULUS))
        signs = [pick(rng, _OPERATION_DRAW) for _ in range(length)]
        problem = Problem(start, tuple((sign, pick(rng, operands_of(sign))) for sign in signs))
        if problem.split == split:
            return problem


def distinct_problems(split: Split, count: int) -> list[Problem]:
    """The first `count` different problems of the split's own stream: always the same ones."""
    rng = Random(seed_of("tiny_problems", split))
    problems: dict[Problem, None] = {}
    while len(problems) < count:
        problems.setdefault(draw_problem(rng, split))
    return list(problems)


def evaluation_rows(split: Split, prefix: str, count: int) -> Iterator[dict[str, str]]:
    """Rows of an evaluation file."""
    for index, problem in enumerate(distinct_problems(split, count)):
        yield {"id": f"{prefix}-{index:04d}", "problem": problem.text, "answer": str(problem.answer)}


def training_rows(count: int, reference: Callable[[Problem, Random], str]) -> Iterator[dict[str, str]]:
    """Rows of the training prompts, each with a correct solution as the data set's own response."""
    for index, problem in enumerate(distinct_problems("train", count)):
        rng = Random(seed_of("tiny_reference", index))
        yield {
            "id": f"train-{index:04d}",
            "prompt": problem.text,
            "answer": str(problem.answer),
            "reference": reference(problem, rng),
        }
