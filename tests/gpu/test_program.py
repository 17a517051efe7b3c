"""The program of the first ten minutes, as far as a machine without a GPU takes it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from harness.files import ROOT
from tests.gpu import first_ten_minutes as program
from tests.gpu.first_ten_minutes import WAYS, Way, line_of, why_not

ROWS = [{"loss": 0.25, "mismatch/max": 1e-3}, {"loss": 0.5, "mismatch/max": 2e-3}]


def test_what_a_machine_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "CARDS", 0)
    monkeypatch.setattr(program.importlib.util, "find_spec", lambda _: None)
    assert {way.name for way in WAYS if why_not(way) is None} == {w.name for w in WAYS if w.cpu and not w.vllm}
    assert why_not(Way("one", ())) == "needs 1 GPU, there are 0"
    assert why_not(Way("ranks", (), 2, cpu=True)) is None
    assert why_not(Way("engine", (), 1, cpu=True, vllm=True)) == "vLLM is not installed"
    monkeypatch.setattr(program, "CARDS", 1)
    assert why_not(Way("one", ())) is None
    assert why_not(Way("two", (), 2, cpu=True)) == "needs 2 GPUs, there is 1"


def test_a_line_compares_with_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's run is made once for all paths that compare with it; a failure is told by its last line."""
    asked: list[tuple[str, ...]] = []

    def run(arguments: tuple[str, ...], *_: object) -> tuple[list[dict[str, float]], str]:
        asked.append(arguments)
        if arguments == ("broken",):
            return [], "RuntimeError: it broke"
        return ([{"loss": 0.2}] if arguments == ("on the CPU",) else ROWS), ""

    monkeypatch.setattr(program, "run", run)
    expected: dict[tuple[str, ...], float] = {}
    ends = time.monotonic() + 100
    for _ in range(2):
        line, fine = line_of(Way("a way", ("given",), cpu=True, beside=("on the CPU",)), expected, ends)
        assert fine and "loss 0.25000 (the CPU's +5.0e-02)  mismatch 2.0e-03" in line
    assert asked == [("on the CPU",), ("given",), ("given",)]
    line, fine = line_of(Way("another", ("broken",), cpu=True), expected, ends)
    assert not fine and line.endswith("FAILED: RuntimeError: it broke")
    assert line_of(Way("late", ("given",), cpu=True), expected, time.monotonic() - 1)[0].endswith("no time left")


@pytest.mark.slow
def test_it_runs_on_a_cpu() -> None:
    """The head's lines, one path and its comparison by real runs, and what is skipped."""
    command = [sys.executable, "tests/gpu/first_ten_minutes.py", "--only", "L"]  # LoRA, and paths of two cards
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert lines[0].endswith("no GPU: on the CPU, 0 visible") and lines[1].startswith("head of ")
    (lora,) = [line for line in lines if line.startswith("hf, LoRA")]
    assert "FAILED" not in lora and "(the CPU's +0.0e+00)" in lora
    assert any(line.startswith("server on the second card") and "needs 2 GPUs" in line for line in lines)
