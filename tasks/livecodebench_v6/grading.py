"""Grades a program on a problem's tests, in the sandbox, in one of two modes.

`official` has the semantics of LiveCodeBench's own runner, quirks included: published numbers are of this kind. `clean`
runs a program as a program, and forgives what only that runner trips over. Results say which it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, Literal, get_args

from harness.sandbox import Limits, Program, Sandbox, SandboxError
from harness.sandbox.packages import MODULES
from tasks.livecodebench_v6.extraction import as_file, extract_code
from tasks.livecodebench_v6.judging import CRASHED, DIED, TIMED_OUT, Result
from tasks.livecodebench_v6.verdicts import Allowed, Verdicts
from tasks.math_answer import after_thinking

Mode = Literal["official", "clean"]
MODES: tuple[str, ...] = get_args(Mode)

TIMEOUT_S = 6  # per test, the official default
# A limit of ours on top of it: a test may turn the official alarm off, or sleep through it, for so long and no longer.
# It must not come before the alarm on a busy machine. This is where official mode differs from upstream, by intent.
GRACE_S = 2.5
START_S = 3.0  # allowed on top of the official limits for starting a sandbox and an interpreter
MEMORY_BYTES = 4 << 30  # upstream names this size in a comment, and limits nothing
PROCESSES = 32  # and threads; a program of a contest has one, a pool of threads some
_ATTEMPTS = 3  # to start a runner, on a machine that may be short of memory for a moment

_INSIDE = Path(__file__).parent / "inside"
_NAMES = {DIED: "died", TIMED_OUT: "time_limit", CRASHED: "runtime_error"}


@dataclass(frozen=True)
class Cases:
    """The tests of a problem, in their order."""

    inputs: Sequence[str]  # functional: one JSON value per line, for each argument
    outputs: Sequence[str]  # functional: one JSON value
    fn_name: str | None  # None: the program reads stdin and writes stdout

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.outputs):
            raise ValueError(f"there are {len(self.inputs)} inputs and {len(self.outputs)} outputs")
        if not self.inputs:
            raise ValueError("there are no tests")


@dataclass(frozen=True)
class Grade:
    """What a response got."""

    results: tuple[Result, ...]  # per test, up to the first failure
    code: str | None  # the program; None: the response has none
    reason: str  # "passed", or why not

    @property
    def passed(self) -> bool:
        return bool(self.results) and all(result > 0 for result in self.results)


def grade_row(row: Mapping[str, Any], mode: str, sandbox: Sandbox) -> dict[str, Any]:
    """Grades a row {"code" or "response", "inputs", "outputs", "fn_name"}, all tests of one problem.

    Args:
        row: may also have "timeout_s", whole seconds for each test; 6 without. A row that is not one is a ValueError.
        mode: "official" or "clean".

    Returns {"results", "passed", "extracted", "reason", "mode", "sandbox"}. A result is true, or false (wrong return
    value), -1 (the run died), -2 (wrong output), -3 (time limit), -4 (error); they end with the first failure.
    """
    given = row.get("timeout_s")
    timeout_s = TIMEOUT_S if given is None else given
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int) or timeout_s < 1:
        raise ValueError(f"timeout_s must be a whole number of seconds, not {timeout_s!r}")
    tests = Cases(_texts(row, "inputs"), _texts(row, "outputs"), _optional_text(row, "fn_name") or None)
    code = _optional_text(row, "code")
    if code is not None:
        grade = grade_code(code, tests, mode, sandbox, timeout_s=timeout_s)
    else:
        response = _optional_text(row, "response")
        if response is None:
            raise ValueError('a row needs "code" or "response"')
        grade = grade_response(response, tests, mode, sandbox, timeout_s=timeout_s)
    return {
        "results": list(grade.results),
        "passed": grade.passed,
        "extracted": grade.code,
        "reason": grade.reason,
        "mode": mode,
        "sandbox": sandbox.name,
    }


def grade_response(response: str, tests: Cases, mode: str, sandbox: Sandbox, timeout_s: int = TIMEOUT_S) -> Grade:
    """Grades the program that stands in a response, after its thinking. None there: as upstream grades an empty one."""
    answer = after_thinking(response)
    if answer is None:
        return Grade((CRASHED,), None, "unfinished_thinking")
    code = extract_code(answer)
    if code is None:
        return Grade((CRASHED,), None, "no_code")
    return grade_code(code, tests, mode, sandbox, timeout_s=timeout_s)


def grade_code(code: str, tests: Cases, mode: str, sandbox: Sandbox, timeout_s: int = TIMEOUT_S) -> Grade:
    """Runs a program on the tests until one fails."""
    runner = _runner(code, tests, mode, timeout_s)
    allowed = Allowed(START_S + timeout_s + GRACE_S, timeout_s + GRACE_S, timeout_s)
    for _ in range(_ATTEMPTS):
        verdicts = Verdicts(tests.outputs, tests.fn_name is not None, mode == "clean", allowed)
        try:
            outcome = sandbox.run(runner, verdicts.feed)
        finally:
            verdicts.close()
        if verdicts.ready:
            break
    else:
        last = (outcome.stderr_tail.strip().splitlines() or [f"{outcome.reason}, exit code {outcome.exit}"])[-1]
        raise SandboxError(f"the runner of a program did not start ({last[:300]})")
    results = tuple(verdicts.results())
    if all(result > 0 for result in results):
        return Grade(results, code, "passed")
    return Grade(results, code, _NAMES.get(results[-1], "wrong_answer"))


def _runner(code: str, tests: Cases, mode: str, timeout_s: int) -> Program:
    """The script that runs in the sandbox, with the program and its inputs. What is expected stays here."""
    if mode not in MODES:
        raise ValueError(f"the mode must be one of {', '.join(MODES)}, not {mode!r}")
    job = {
        "code": as_file(code) if mode == "clean" else code,
        "inputs": list(tests.inputs),
        "fn_name": tests.fn_name,
        "timeout_s": timeout_s,
        "packages": MODULES,
    }
    files = {"job.json": json.dumps(job).encode(), **{name: _source(name) for name in ("common.py", "portable.py")}}
    if mode == "clean" and tests.fn_name is None:
        files |= {f"input-{number}": text.encode(errors="replace") for number, text in enumerate(tests.inputs)}
    wall_s = (timeout_s + 1) * len(tests.inputs) + 5 + START_S  # the official limit of the whole problem
    limits = Limits(wall_s=wall_s, memory_bytes=MEMORY_BYTES, processes=PROCESSES)
    return Program(_source(f"{mode}.py").decode(), files=files, packages=MODULES, limits=limits)


def _source(name: str) -> bytes:
    return (_INSIDE / name).read_bytes()


def _texts(row: Mapping[str, Any], field: str) -> list[str]:
    texts = row.get(field)
    if not isinstance(texts, Sequence) or isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{field} must be a list of texts")
    return list(texts)


def _optional_text(row: Mapping[str, Any], field: str) -> str | None:
    text = row.get(field)
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{field} must be a text, not {shortened(text)}")
    return text
