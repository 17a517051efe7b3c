"""What a failed run says of itself in the table: the reason, and what to do instead."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from baselines.opd import OPD
from harness.training import job
from harness.types import TokenCredit
from tests.training.test_step import config_for


@dataclass(frozen=True)
class RunningMean(OPD):
    """Keeps its last reward, as one is tempted to."""

    last: float = 0.0

    def credit(self, batch: Any, teacher: Any, student: Any, progress: float) -> TokenCredit:
        """OPD's, and assigns to itself."""
        self.last = 1.0  # type: ignore[misc]
        return super().credit(batch, teacher, student, progress)


@dataclass(frozen=True)
class Rewriting(OPD):
    """Assigns to what it was given."""

    def credit(self, batch: Any, teacher: Any, student: Any, progress: float) -> TokenCredit:
        """OPD's, on other log-probs."""
        teacher.logprobs = teacher.logprobs.clamp(min=-5)
        return super().credit(batch, teacher, student, progress)


@pytest.mark.parametrize(("method", "field"), [(RunningMean(), "last"), (Rewriting(), "logprobs")])
def test_a_method_that_assigns_is_told_what_to_do_instead(
    random_pair: Path, tmp_path: Path, method: OPD, field: str
) -> None:
    config = dataclasses.replace(config_for(random_pair, tmp_path, method), method_name="opd")
    record = job.run_job(config)
    assert record.status == "failed"
    assert record.reason.startswith(f"FrozenInstanceError: cannot assign to field '{field}'; a method holds no state")
    assert record.reason.endswith("put what a person should see into TokenCredit.metrics")  # not cut off
    assert "FrozenInstanceError" in (config.run_folder() / "error.log").read_text()
