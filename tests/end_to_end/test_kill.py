"""SIGKILL at random points of a run, also in the middle of a save: the resumed run ends with the
same weights and rows.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.files import ROOT

pytestmark = pytest.mark.slow

PROMPTS = Path(__file__).parent.parent / "data" / "prompts.jsonl"
KILLS = 10
CLOCKS = ("time/", "memory/")  # what a run measures of the machine

# one run in one process; KILL_IN_SAVE=n kills it in the middle of its n-th save, when weights are there and the
# optimiser's state is not
SCRIPT = """
import os, signal, sys
from transformers import Trainer
from harness.training.job import run_job
from harness.config.sweep import planned_runs
from harness.console.commands import quiet_libraries
nth = int(os.environ.get("KILL_IN_SAVE", "0"))
if nth:
    saves, original = [0], Trainer._save_optimizer_and_scheduler
    def save(self, folder):
        saves[0] += 1
        if saves[0] == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, folder)
    Trainer._save_optimizer_and_scheduler = save
quiet_libraries()
(run,) = planned_runs(sys.argv[1:])
record = run_job(run)
sys.exit(record.status != "completed")
"""


def start(results: Path, **environment: str) -> subprocess.Popen[bytes]:
    arguments = [
        "hydra.mode=RUN",
        "method=tropd",
        f"results_dir={results}",
        f"setting.prompts={PROMPTS}",
        "setting.steps=24",
        "setting.prompts_per_step=8",
        "engine.micro_batch_prompts=4",
        "engine.save_every=3",
        "evaluation.dev_every=6",
    ]
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
    )


def outcome(results: Path) -> dict[str, Any]:
    """Everything that a run leaves, without clocks and memory."""
    (folder,) = results.glob("*/tropd/seed0")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    record = json.loads((folder / "record.json").read_text())
    counters = {key: value for key, value in record["counters"].items() if not key.endswith(("_s", "_bytes"))}
    return {
        "weights": (folder / "checkpoint" / "model.safetensors").read_bytes(),
        "metrics": [{k: v for k, v in row.items() if not k.startswith(CLOCKS)} for row in rows],
        "samples": (folder / "samples.jsonl").read_text(),
        "items": (folder / "items.jsonl").read_text(),
        "texts": (folder / "texts.jsonl").read_text(),
        "record": (record["status"], record["evaluations"], counters),
    }


def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    began = time.time()
    assert start(tmp_path / "whole").wait() == 0
    duration = time.time() - began
    expected = outcome(tmp_path / "whole")

    rng = random.Random(0)
    results = tmp_path / "killed"
    killed = {"anywhere": 0, "in a save": 0}
    while sum(killed.values()) < KILLS:
        in_save = sum(killed.values()) % 3 == 2
        process = start(results, KILL_IN_SAVE=str(rng.randint(1, 2)) if in_save else "0")
        if not in_save:
            # the process takes about half of its life to start; later draws reach training, saves and evaluation
            time.sleep(rng.uniform(0.3, 1.0) * duration)
            process.kill()
        code = process.wait()
        if code == -signal.SIGKILL:
            killed["in a save" if in_save else "anywhere"] += 1
        else:
            assert code == 0  # it came to its end before the kill: start another life from nothing
            assert outcome(results) == expected
            results = tmp_path / f"killed{sum(killed.values())}-{rng.random()}"
    assert killed["in a save"] >= 3
    assert start(results).wait() == 0
    assert outcome(results) == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_command(tmp_path: Path, number: signal.Signals) -> None:
    """A sweep whose runs would last for minutes: its worker processes end with the command that started them."""
    command = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "harness.run",
            "method=opd,tropd",
            "seed=0",
            "setting.steps=2000",
            f"results_dir={tmp_path}",
        ],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stderr=subprocess.DEVNULL,
    )
    try:
        workers = eventually(
            lambda: {json.loads(path.read_text())["pid"] for path in tmp_path.glob("*/*/*/progress.json")}, 120
        )
        assert command.pid not in workers and all(Path(f"/proc/{pid}").exists() for pid in workers)
    finally:
        command.send_signal(number)
        command.wait()
    assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 20)


def eventually(look: Callable[[], Any], limit_s: float) -> Any:
    """The first true answer within the limit."""
    end = time.monotonic() + limit_s
    while not (found := look()):
        assert time.monotonic() < end, "not within the limit"
        time.sleep(0.2)
    return found
