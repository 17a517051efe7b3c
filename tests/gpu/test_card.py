"""On a real card (`make test-gpu`): what the pretended one rehearses, and the program of the first ten minutes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from baselines.gkd import GKD
from baselines.tropd import TrOPD
from harness.console.progress import RunProgress
from harness.files import ROOT
from harness.results.record import read_metrics
from harness.training.train import train
from harness.types import Method
from tests.pretend_gpu.test_training import assert_same_as_on_the_cpu, gpu_config

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _card() -> None:
    if not torch.cuda.is_available():
        pytest.fail("there is no CUDA device: make TORCH=cuda setup on a machine with one")


@pytest.mark.parametrize("method", [TrOPD(), GKD(student_share=1.0)])
def test_float64_gives_the_numbers_of_the_cpu(random_pair: Path, tmp_path: Path, method: Method) -> None:
    config = gpu_config(random_pair, tmp_path, method)
    folder = tmp_path / "run"
    folder.mkdir()
    train(config, folder, RunProgress(None, config.setting.steps))
    assert_same_as_on_the_cpu(config, folder)
    assert all(row["memory/gpu_peak_bytes"] > 0 for row in read_metrics(folder))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two cards")
def test_a_teacher_on_another_card(random_pair: Path, tmp_path: Path) -> None:
    config = gpu_config(random_pair, tmp_path, GKD(student_share=1.0))
    config = dataclasses.replace(config, engine=dataclasses.replace(config.engine, teacher_device="cuda:1"))
    folder = tmp_path / "run"
    folder.mkdir()
    train(config, folder, RunProgress(None, config.setting.steps))
    assert_same_as_on_the_cpu(config, folder)


def test_the_first_ten_minutes() -> None:
    """What it says is to be published; here, that no path fails."""
    command = [sys.executable, "tests/gpu/first_ten_minutes.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
