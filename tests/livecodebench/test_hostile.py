"""Programs that go for the grader's machine: a known verdict, in time, and the machine keeps its memory."""

from __future__ import annotations

import time

import pytest

from harness.sandbox import Sandbox
from tasks.livecodebench_v6.grading import GRACE_S, MODES, START_S, grade_row
from tests.livecodebench.hostile import ATTACKS
from tests.measure.hostile import lost_bytes

TIMEOUT_S = 1  # of a test; what the attacks do takes less
SLACK_S = 5.0  # for starting and ending processes on a busy machine
LOST_BYTES = 256 << 20
TRIES = 3  # of the measurement: where no group counts, what else runs on the machine falls into it
REASONS = {"wrong_answer", "runtime_error", "time_limit", "died"}
LARGE = {"many_empty_lists"}  # within the program's own limit: 4 million lists


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("mode", [MODES[0], pytest.param(MODES[1], marks=pytest.mark.slow)])
def test_an_attack_fails_in_time_and_memory(mode: str, name: str, sandbox: Sandbox):
    row = {**ATTACKS[name].row, "timeout_s": TIMEOUT_S}
    for _ in range(TRIES):
        began = time.monotonic()
        with lost_bytes() as lost:
            grade = grade_row(row, mode, sandbox)
        assert time.monotonic() - began < START_S + 2 * TIMEOUT_S + GRACE_S + SLACK_S
        assert not grade["passed"] and grade["reason"] in REASONS
        if lost[0] < LOST_BYTES or name in LARGE:
            return
    pytest.fail(f"the host lost {lost[0] >> 20} MiB")
