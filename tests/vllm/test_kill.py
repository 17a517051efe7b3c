"""SIGKILL of the process with the engine in it, in a run and in an evaluation, and of a server in a run: nothing is
lost.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.files import ROOT
from tests.vllm.conftest import processes_of_group, processes_with
from tests.vllm.test_run import PROMPTS, SMALL, rows_of

pytestmark = pytest.mark.vllm

STEPS = 12
CLOCKS = ("time/", "memory/")  # what a run measures of the machine


def start(module: str, results: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments, f"results_dir={results}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "OF_THIS_TEST": str(results)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(results: Path, *arguments: str) -> subprocess.Popen[str]:
    steps = [f"setting.steps={STEPS}", "engine.save_every=3", "evaluation=none"]
    return start("harness.run", results, "method=tropd", *SMALL[:-1], *steps, *arguments)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], limit_s: float = 240) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


def steps_done(results: Path) -> int:
    paths = list(results.glob("*/tropd/seed0/metrics.jsonl"))
    return paths[0].read_text().count("\n") if paths else 0


def outcome(results: Path) -> dict[str, Any]:
    (folder,) = results.glob("*/tropd/seed0")
    rows = [{k: v for k, v in row.items() if not k.startswith(CLOCKS)} for row in rows_of(folder)]
    status = json.loads((folder / "record.json").read_text())["status"]
    return {"weights": (folder / "checkpoint" / "model.safetensors").read_bytes(), "rows": rows, "status": status}


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    errors = process.communicate(timeout=400)[1]
    assert process.returncode == code, errors
    return errors


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    finish(train(tmp_path / "whole", "engine=vllm"))
    process = train(tmp_path / "killed", "engine=vllm")
    wait_for(lambda: steps_done(tmp_path / "killed") >= 5, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert processes_with(str(tmp_path / "killed")) == []
    finish(train(tmp_path / "killed", "engine=vllm"))
    found, expected = outcome(tmp_path / "killed"), outcome(tmp_path / "whole")
    assert found == expected


def test_a_killed_evaluation_generates_nothing_twice(tied: str, tmp_path: Path) -> None:
    """The journal keeps what was finished, byte for byte; the resumed evaluation draws the rest."""
    arguments = ["engine=vllm", "engine.vllm.max_sequences=16", f"checkpoint={tied}", "name=random", "evaluation=tiny"]
    arguments += ["++evaluation.samples.arithmetic=4", "evaluation.decodings.arithmetic=[]"]

    def journal() -> bytes:
        paths = list(tmp_path.glob("*/random/seed0/generations.jsonl"))
        return paths[0].read_bytes() if paths else b""

    process = start("harness.evaluate", tmp_path, *arguments)
    wait_for(lambda: journal().count(b"\n") >= 100, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    kept = journal()[: journal().rfind(b"\n") + 1]
    assert kept.count(b"\n") < 1024
    finish(start("harness.evaluate", tmp_path, *arguments))
    assert journal().startswith(kept)
    keys = [json.loads(line)["key"] for line in journal().splitlines()]
    assert len(keys) == len(set(keys)) == 1024


def test_a_killed_server_is_started_once_more_and_the_second_time_the_run_fails(tmp_path: Path) -> None:
    arguments = [
        "engine=server",
        "engine.teacher=hf",
        "setting.max_new_tokens=200",
        f"setting.prompts={PROMPTS}",
    ]
    process = train(tmp_path, *arguments)

    def server() -> int | None:
        """The process group of `vllm serve`: its main process leads one and is a child of the run."""
        for pid in processes_with(str(tmp_path)):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"vllm.entrypoints.cli.main" in command and os.getpgid(pid) == pid:
                return pid
        return None

    wait_for(lambda: steps_done(tmp_path) >= 3, process)
    first = server()
    assert first is not None
    os.killpg(first, signal.SIGKILL)
    wait_for(lambda: steps_done(tmp_path) >= 6, process)
    second = server()
    assert second is not None and second != first
    os.killpg(second, signal.SIGKILL)
    errors = finish(process, code=1)
    assert errors.count("starting it once more") == 1
    (folder,) = tmp_path.glob("*/tropd/seed0")
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "failed" and "was not answered" in record["reason"]
    rows = rows_of(folder)
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert max(row["mismatch/max"] for row in rows) <= 1e-4  # also after the restart: it had the current weights
    assert processes_of_group(second) == [] and processes_with(str(tmp_path)) == []

    finish(train(tmp_path, *arguments))  # resumes
    rows = rows_of(folder)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert max(row["mismatch/max"] for row in rows) <= 1e-4
    assert json.loads((folder / "record.json").read_text())["status"] == "completed"
    assert processes_with(str(tmp_path)) == []
