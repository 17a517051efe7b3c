"""SIGKILL at random points of an evaluation: the rows of the resumed one are the same, and no sample is generated
twice.

In float64: what is left to be drawn is drawn in other company, and the rounding of a product depends on how many rows
it has. In bfloat16 that turns a sample in some thousands.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.files import ROOT

pytestmark = pytest.mark.slow

KILLS = 5
SAMPLES = 256 * (1 + 8 + 8)  # greedy, and by the paper's decoding and at temperature 1


def start(results: Path) -> subprocess.Popen[bytes]:
    arguments = [
        "checkpoint=harness/tiny/checkpoints/student",
        "evaluation=tiny",
        "dtype=float64",
        "++evaluation.samples.arithmetic=8",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "harness.evaluate", *arguments, f"results_dir={results}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
    )


def journal(results: Path) -> bytes:
    paths = list(results.glob("*/student/seed0/generations.jsonl"))
    return paths[0].read_bytes() if paths else b""


def outcome(results: Path) -> dict[str, Any]:
    """Everything that an evaluation leaves, without clocks and memory."""
    (folder,) = results.glob("*/student/seed0")
    record = json.loads((folder / "record.json").read_text())
    rows = {name: (folder / name).read_text() for name in ("items.jsonl", "texts.jsonl")}
    return {"record": (record["status"], record["evaluations"]), **rows}


def test_five_kills_change_nothing_and_nothing_is_generated_twice(tmp_path: Path) -> None:
    whole = start(tmp_path / "whole")
    while not journal(tmp_path / "whole"):
        assert whole.poll() is None
        time.sleep(0.02)
    began = time.time()  # of the generation
    assert whole.wait() == 0
    duration = time.time() - began
    expected = outcome(tmp_path / "whole")

    rng = random.Random(0)
    results, kept = tmp_path / "killed", [b""]
    for _ in range(KILLS):
        process = start(results)
        while len(journal(results)) == len(kept[-1]) and process.poll() is None:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, duration / (KILLS + 1)))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
        # a line may be torn; everything before it is what the next process goes on from
        kept.append(journal(results)[: journal(results).rfind(b"\n") + 1])
        assert kept[-1].startswith(kept[-2])
    assert 0 < kept[-1].count(b"\n") < SAMPLES
    assert start(results).wait() == 0
    assert outcome(results) == expected

    final = journal(results)
    assert final.startswith(kept[-1])  # finished samples are kept byte for byte
    keys = [json.loads(line)["key"] for line in final.splitlines()]
    assert len(keys) == len(set(keys)) == SAMPLES
    assert set(keys) == {json.loads(line)["key"] for line in journal(tmp_path / "whole").splitlines()}
