"""How fast programs are graded, and what the sandbox costs: `python tests/measure/grading.py [--programs N] [--workers
W]`.

Small programs, so that what is measured is the grading and not the programs. The row without a sandbox runs the same
runner with the official semantics in a plain child process: the difference between the two is what confinement costs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from harness.sandbox import Program, Sandbox
from harness.sandbox.confinement import Unconfined
from harness.sandbox.sandbox import usable_cores
from tasks.livecodebench_v6.grading import grade_row
from tasks.math_answer import grade as grade_answer

TESTS = 20  # of each program; LiveCodeBench's problems have some tens
STDIN = {
    "code": "n = int(input())\nprint(sum(map(int, input().split())))",
    "inputs": [f"{n}\n{' '.join(map(str, range(n)))}\n" for n in range(1, TESTS + 1)],
    "outputs": [f"{n * (n - 1) // 2}\n" for n in range(1, TESTS + 1)],
    "fn_name": None,
}
FUNCTIONAL = {
    "code": "class Solution:\n    def add(self, a, b):\n        return a + b",
    "inputs": [f"{n}\n{2 * n}" for n in range(TESTS)],
    "outputs": [str(3 * n) for n in range(TESTS)],
    "fn_name": "add",
}


def seconds(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def grade(count: int, mode: str, sandbox: Sandbox, workers: int) -> float:
    """Seconds for `count` programs, half of them of each kind."""
    rows = [STDIN, FUNCTIONAL] * (count // 2)

    def run() -> None:
        grades = sandbox.map(lambda row: grade_row(row, mode, sandbox), rows, workers)
        assert all(grade["passed"] for grade in grades)

    return seconds(run)


def answers_per_second(count: int = 300) -> dict[str, float]:
    """Math answers in one process: integers, as AIME's are, and expressions that only math-verify tells equal."""
    integers = [(rf"So it is \boxed{{{n}}}.", str(n)) for n in range(count)]
    expressions = [(rf"So it is \boxed{{\sqrt{{{n * n}}}+x}}.", f"x+{n}") for n in range(2, count + 2)]

    def run(cases: list[tuple[str, str]]) -> None:
        assert all(grade_answer(response, gold).correct for response, gold in cases)

    run(expressions[:1])  # the worker process starts
    return {
        name: count / seconds(lambda cases=cases: run(cases))
        for name, cases in (("integers", integers), ("expressions", expressions))
    }


def medians_ms(runs: dict[str, Callable[[], Any]], repeats: int = 30) -> dict[str, float]:
    """Median milliseconds of each run, one at a time and in turn, so that what else the machine does falls on all."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run))
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--programs", type=int, default=60)
    parser.add_argument("--workers", type=int, default=min(2, usable_cores()))
    arguments = parser.parse_args()
    confined, plain = Sandbox.detect(allow_unsafe=False), Sandbox(Unconfined())
    count = arguments.programs // 2 * 2
    print(
        f"{count} programs of {TESTS} tests, {arguments.workers} workers, sandbox: {confined.name}, load "
        f"{os.getloadavg()[0]:.1f}"
    )
    cases = [("official", plain), ("official", confined), ("clean", confined)]
    for mode, sandbox in cases:
        grade(2, mode, sandbox, arguments.workers)  # warm
        took = grade(count, mode, sandbox, arguments.workers)
        print(f"{mode:9s} {sandbox.name:28s} {count / took:6.1f} programs/s")
    print("math, one process: " + ", ".join(f"{rate:,.0f} {kind}/s" for kind, rate in answers_per_second().items()))
    empty = Program("")
    took_ms = medians_ms(
        {
            "graded, plain": lambda: grade_row(STDIN, "official", plain),
            "graded, confined": lambda: grade_row(STDIN, "official", confined),
            "empty, plain": lambda: plain.run(empty),
            "empty, confined": lambda: confined.run(empty),
        }
    )
    print("one at a time, milliseconds: " + ", ".join(f"{name} {value:.1f}" for name, value in took_ms.items()))
    for kind in ("graded", "empty"):
        overhead = took_ms[f"{kind}, confined"] - took_ms[f"{kind}, plain"]
        print(f"overhead of the sandbox per {kind} program: {overhead:.1f} ms")


if __name__ == "__main__":
    main()
