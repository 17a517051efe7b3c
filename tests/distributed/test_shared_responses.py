"""Teacher responses by two gloo ranks: each writes its share, all read the whole, and it is what one rank makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.training.guidance import Draw, fingerprint, load_or_make_responses
from harness.training.shared_engine import shared
from tests.distributed.shared_responses import PROMPTS, SAMPLING, written
from tests.scripted import ScriptedEngine


def on_two_ranks(folder: Path, dies_after: int = 0) -> list[dict[str, Any]]:
    """What each rank told; empty where rank 0 died."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = str(Path(__file__).with_name("shared_responses.py"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(["", *sys.path])}
    done = subprocess.run(
        [*command, script, str(folder), str(dies_after)], env=environment, capture_output=True, text=True
    )
    assert (done.returncode == 0) == (dies_after == 0), done.stderr[-3000:]
    return [] if dies_after else [json.loads((folder / f"rank{i}.json").read_text()) for i in range(2)]


def cache_in(folder: Path) -> Path:
    return folder / f"responses-{fingerprint('teacher', PROMPTS, SAMPLING)}.jsonl"


@pytest.fixture
def alone(tmp_path: Path) -> str:
    """The cache that one rank makes."""
    with shared(ScriptedEngine(written)) as engine:
        load_or_make_responses(tmp_path / "alone", Draw("teacher"), engine, PROMPTS, SAMPLING, range(11))
    return cache_in(tmp_path / "alone").read_text()


@pytest.mark.slow
def test_ranks_share_the_responses(tmp_path: Path, alone: str) -> None:
    told = on_two_ranks(tmp_path)
    assert cache_in(tmp_path).read_text() == alone  # row for row
    # in pieces of 2 a rank: 0 to 3, 4 to 7 and 8 to 10, of which every other one is a rank's
    assert [own["own"] for own in told] == [["0", "2", "4", "6", "8", "10"], ["1", "3", "5", "7", "9"]]
    everything = {row["prompt_id"]: row["ids"] for row in map(json.loads, alone.splitlines())}
    assert [own["read"] for own in told] == [everything, everything] and len(everything) == 11


@pytest.mark.slow
def test_a_killed_build_goes_on_where_it_was(tmp_path: Path, alone: str) -> None:
    on_two_ranks(tmp_path, dies_after=4)  # rank 0 dies in the third piece
    assert cache_in(tmp_path).read_text() == "".join(alone.splitlines(keepends=True)[:8])
    told = on_two_ranks(tmp_path)
    assert [own["own"] for own in told] == [["8", "10"], ["9"]]
    assert cache_in(tmp_path).read_text() == alone


def test_one_rank_asks_its_own_engine() -> None:
    own = ScriptedEngine(written)
    with shared(own) as engine:
        assert engine is own
