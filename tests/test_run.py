"""Which launcher a command gets."""

from __future__ import annotations

import sys

import pytest

from harness.config.methods import register_methods
from harness.config.sweep import planned_runs
from harness.run import one_after_another


@pytest.mark.parametrize(
    ("device", "given", "added"),
    [
        ("cpu", [], []),
        ("cuda", [], ["hydra/launcher=basic"]),
        ("cuda", ["hydra/launcher=cores"], []),
        ("cuda", ["+hydra/launcher=submitit_slurm"], []),
    ],
)
def test_runs_on_a_gpu_follow_one_another(
    monkeypatch: pytest.MonkeyPatch, device: str, given: list[str], added: list[str]
) -> None:
    """The default starts a run per core of the processor, which would all be on one card."""
    register_methods()
    runs = planned_runs(["method=opd", f"engine.device={device}"])
    monkeypatch.setattr(sys, "argv", ["run", *given])
    one_after_another(runs, given)
    assert sys.argv == ["run", *given, *added]
