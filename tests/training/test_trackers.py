"""The Trainer's own trackers: files in the run's folder, the step's metrics in them, and one sentence for a tracker
that is absent.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from baselines.opd import OPD
from harness.console.progress import RunProgress
from harness.errors import UserError
from harness.results.record import read_metrics
from harness.training.trackers import check_trackers
from harness.training.train import train
from tests.training.test_step import STEPS, config_for


def test_tensorboard_gets_the_metrics_of_every_step(random_pair: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    check_trackers(["tensorboard"])
    config = config_for(random_pair, tmp_path, OPD())
    config = dataclasses.replace(config, engine=dataclasses.replace(config.engine, report_to=["tensorboard"]))
    folder = tmp_path / "run"
    folder.mkdir()
    train(config, folder, RunProgress(folder / "progress.json", STEPS))
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    rows = read_metrics(folder)
    for key in ("kl/reverse_k1", "grad_norm", "loss/policy"):
        points = events.Scalars(f"train/{key}")
        assert [point.step for point in points] == [row["step"] for row in rows] == list(range(1, STEPS + 1))
        assert [point.value for point in points] == pytest.approx([row[key] for row in rows], rel=1e-5, abs=1e-7)


def test_without_trackers_no_file_is_left(random_pair: Path, tmp_path: Path) -> None:
    config = config_for(random_pair, tmp_path, OPD())
    folder = tmp_path / "run"
    folder.mkdir()
    train(config, folder, RunProgress(folder / "progress.json", STEPS))
    assert not (folder / "tensorboard").exists()


def test_a_tracker_that_is_absent_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"no such tracker; known: .*tensorboard"):
        check_trackers(["tensorbord"])
    with pytest.raises(UserError, match="'neptune': its package is not installed; `pip install neptune`"):
        check_trackers(["neptune"])
