"""Rows of LiveCodeBench: runs the program of a response on tests, in the sandbox."""

from collections.abc import Callable, Mapping
from typing import Any

from harness.errors import UserError
from harness.sandbox import Sandbox
from harness.sandbox.packages import require_packages
from harness.sandbox.sandbox import usable_cores
from tasks.livecodebench_v6 import grading

GRADES_LIKE = ("tasks.livecodebench_v6.task.process_results",)
FIELDS = '{"code" or "response", "inputs", "outputs", "fn_name"} -> {"results": [..], "passed", ...}'
OPTIONS = {"mode": "official"}  # or clean
WORKERS = usable_cores()


def make_grader(options: Mapping[str, str]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The grader, once a sandbox and all that programs may import are found."""
    mode = options["mode"]
    if mode not in grading.MODES:
        raise UserError(f"mode must be one of {', '.join(grading.MODES)}, not {mode!r}.")
    sandbox = Sandbox.detect()
    require_packages()
    return lambda row: grading.grade_row(row, mode, sandbox)
