"""Verdicts in official mode equal those of the official runner, type for type.

lcb_parity.jsonl: its verdicts on programs made for this project. lcb_quirks.jsonl: more of them, each at one of the
corners in which a runner may differ: ways to read and write, what surrounds a program, how it ends, what it returns.
"""

from __future__ import annotations

import pytest

from harness.sandbox import Sandbox
from tasks.livecodebench_v6.grading import grade_row

from .conftest import rows_of

WORKERS = 2
# Programs that only the official runner accepts: their text is no valid program, or leans on that runner's own names.
NO_PROGRAMS = {
    "nested_def_nonlocal",
    "return_early",
    "name",
    "stdin_read_twice",
    "fn_prelude_add",
    "fn_empty",
    "ignorealarm",
}
FORGIVEN = (
    "buffer_readline_twice open_0 main_guard_not_last quit_call global_stmt from_future for_stdin "
    "from_sys_stdin_buffer "
    "os_write sys_stdout_buffer buffer_readlines import_resource"
)


@pytest.mark.parametrize("name", ["lcb_parity.jsonl", pytest.param("lcb_quirks.jsonl", marks=pytest.mark.slow)])
def test_official_mode_gives_the_official_results(name: str, sandbox: Sandbox):
    rows = rows_of(name)
    grades = sandbox.map(lambda row: grade_row(row, "official", sandbox), rows, WORKERS)
    wrong = {
        row["name"]: (row["official_results"], grade["results"])
        for row, grade in zip(rows, grades, strict=True)
        if repr(grade["results"]) != repr(row["official_results"])  # True is not 1
    }
    assert not wrong
    passing = [row["name"] for row, grade in zip(rows, grades, strict=True) if grade["passed"]]
    assert passing == [row["name"] for row in rows if all(result > 0 for result in row["official_results"])]


@pytest.mark.slow
def test_clean_mode_is_kinder(sandbox: Sandbox):
    """Whatever passes officially passes, if it is a program at all; and the official runner's own
    quirks are forgiven.
    """
    rows = [
        row for row in [*rows_of("lcb_parity.jsonl"), *rows_of("lcb_quirks.jsonl")] if row["name"] not in NO_PROGRAMS
    ]
    passing = [row for row in rows if all(result > 0 for result in row["official_results"])]
    grades = sandbox.map(lambda row: grade_row(row, "clean", sandbox), passing, WORKERS)
    assert not [row["name"] for row, grade in zip(passing, grades, strict=True) if not grade["passed"]]


def test_clean_mode_forgives(sandbox: Sandbox):
    rows = [
        row for row in [*rows_of("lcb_parity.jsonl"), *rows_of("lcb_quirks.jsonl")] if row["name"] in FORGIVEN.split()
    ]
    assert len(rows) == len(FORGIVEN.split())
    for mode, verdict in (("official", False), ("clean", True)):
        grades = sandbox.map(lambda row, mode=mode: grade_row(row, mode, sandbox), rows, WORKERS)
        assert {row["name"]: grade["passed"] for row, grade in zip(rows, grades, strict=True)} == {
            row["name"]: verdict for row in rows
        }
