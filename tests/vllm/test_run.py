"""`engine=vllm` from the command line: a run, a mixed table refused, an evaluation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.files import ROOT
from harness.results.record import load_record

pytestmark = pytest.mark.vllm

PROMPTS = ROOT / "tests" / "data" / "prompts.jsonl"
SMALL = [
    "hydra.mode=RUN",
    f"setting.prompts={PROMPTS}",
    "setting.prompts_per_step=8",
    "engine.micro_batch_prompts=8",
    "++evaluation.samples.arithmetic=1",
]


def command(module: str, *arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=400,
        env={**os.environ, "COLUMNS": "140", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty steps of TrOPD: prefixes by the teacher's engine, support fetched in a second pass, evaluation during
    training.
    """
    results = tmp_path_factory.mktemp("results")
    done = command(
        "harness.run",
        "engine=vllm",
        "method=tropd",
        "setting.steps=20",
        "evaluation.dev_every=10",
        f"results_dir={results}",
        *SMALL,
    )
    assert "self-check at version 0" in done.stderr and "self-check at version 1" in done.stderr
    return results


def test_twenty_steps(results: Path) -> None:
    (folder,) = results.glob("tiny_cpu-????????/tropd/seed0")
    record = load_record(folder / "record.json")
    assert (record.status, record.engine) == ("completed", "vllm")
    assert record.counters.teacher_tokens > 0
    assert record.provenance["versions"]["vllm"].startswith("0.32.0")
    rows = rows_of(folder)
    assert [row["step"] for row in rows] == list(range(1, 21))
    for row in rows:
        assert row["mismatch/mean"] <= row["mismatch/max"] <= 1e-4
        assert 0 < row["time/weights_s"] < row["time/rollout_s"]
    assert [row["step"] for row in rows if "eval/arithmetic_dev" in row] == [10, 20]
    assert [(e.decoding, e.problems, e.samples) for e in record.evaluations] == [
        (name, 256, 1) for name in ("greedy", "paper", "sampled")
    ]


def test_a_table_of_two_engines_is_refused_before_anything_is_trained(results: Path) -> None:
    done = command(
        "harness.run", "engine=hf", "method=opd", "setting.steps=20", f"results_dir={results}", *SMALL, code=2
    )
    assert "was made with engine=vllm" in done.stderr
    assert not list(results.glob("tiny_cpu-????????/opd"))


def test_the_teachers_entropy_and_the_importance_ratio(tmp_path: Path) -> None:
    command(
        "harness.run",
        "engine=vllm",
        "method=eopd",
        "setting.steps=3",
        "setting.importance_cap=2.0",
        "evaluation=none",
        f"results_dir={tmp_path}",
        *SMALL[:-1],
    )
    (folder,) = tmp_path.glob("tiny_cpu-????????/eopd/seed0")
    for row in rows_of(folder):
        assert row["ratio/mean"] == pytest.approx(1, abs=1e-4) and row["ratio/capped_frac"] == 0
        assert row["entropy/teacher"] > 0 and "credit/gate_unsure_frac" not in row  # the whole vocabulary was asked for


@pytest.mark.skipif("BENCHMARK_DATA" not in os.environ, reason="BENCHMARK_DATA is not set")
def test_aime_2024_with_four_samples(tied: str, tmp_path: Path) -> None:
    """On a random model, whose samples all differ."""
    command(
        "harness.evaluate",
        "engine=vllm",
        f"checkpoint={tied}",
        "name=random",
        "evaluation.tasks=[aime24]",
        "++evaluation.samples.aime24=4",
        "++evaluation.max_new_tokens.aime24=32",
        f"evaluation.data_dir={os.environ['BENCHMARK_DATA']}",
        f"results_dir={tmp_path}",
    )
    (folder,) = tmp_path.glob("evaluated-*/random/seed0")
    (evaluation,) = load_record(folder / "record.json").evaluations
    assert (evaluation.task, evaluation.problems, evaluation.samples) == ("aime24", 30, 4)
    texts = [json.loads(line) for line in (folder / "texts.jsonl").read_text().splitlines()]
    assert len(texts) == 120
    by_problem: dict[str, set[str]] = {}
    for row in texts:
        by_problem.setdefault(row["item_id"], set()).add(row["text"])
    assert all(len(different) == 4 for different in by_problem.values())
