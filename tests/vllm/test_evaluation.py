"""Evaluation by vLLM of what another engine has trained: into the run's record, by several engines side by side, and
killed in the middle.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from harness.results.record import load_record
from tests.vllm.conftest import processes_with
from tests.vllm.test_kill import finish, start, wait_for
from tests.vllm.test_run import SMALL, command

pytestmark = pytest.mark.vllm

GREEDY = ["evaluation=tiny", "evaluation.decodings.arithmetic=[greedy]", "limit=64"]


def correct(folder: Path) -> list[float]:
    return [json.loads(line)["correct"] for line in (folder / "items.jsonl").read_text().splitlines()]


def test_a_checkpoint_trained_by_transformers(tmp_path: Path) -> None:
    """Its record says who did what; transformers draws the same greedy answers, under a name, since the column is
    vLLM's.
    """
    few = ["method=opd", "setting.steps=3", "evaluation=none", f"results_dir={tmp_path}", *SMALL[:-1]]
    command("harness.run", "engine=hf", *few)
    (run,) = tmp_path.glob("tiny_cpu-????????/opd/seed0")
    asked = [f"checkpoint={run / 'checkpoint'}", f"results_dir={tmp_path}", *GREEDY]
    command("harness.evaluate", "engine=vllm", *asked)
    record = load_record(run / "record.json")
    assert (record.engine, record.teacher_engine, [e.engine for e in record.evaluations]) == ("hf", "hf", ["vllm"])
    refused = command("harness.evaluate", *asked, code=2).stderr
    assert "were drawn by vllm" in refused and "name=" in refused
    command("harness.evaluate", "name=by-transformers", *asked)
    (named,) = tmp_path.glob("evaluated-*/by-transformers/seed0")
    pairs = list(zip(correct(run), correct(named), strict=True))
    assert len(pairs) == 64 and sum(a != b for a, b in pairs) <= 1  # a tie may fall either way


def test_two_engines_and_one_journal(tied: str, tmp_path: Path) -> None:
    """Two processes share the samples; killed in the middle nothing is drawn twice, and nothing is left behind."""
    arguments = [f"checkpoint={tied}", "name=random", "engine=vllm", "engine.vllm.evaluation_engines=2"]
    arguments += ["engine.vllm.max_sequences=8", "++evaluation.samples.arithmetic=4", "evaluation=tiny"]
    arguments += ["evaluation.decodings.arithmetic=[]", "limit=64"]

    def journal() -> bytes:
        paths = list(tmp_path.glob("*/random/seed0/generations.jsonl"))
        return paths[0].read_bytes() if paths else b""

    process = start("harness.evaluate", tmp_path, *arguments)
    wait_for(lambda: journal().count(b"\n") >= 40, process, 400)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    kept = journal()[: journal().rfind(b"\n") + 1]
    assert kept.count(b"\n") < 256
    finish(start("harness.evaluate", tmp_path, *arguments))
    assert journal().startswith(kept)
    keys = [json.loads(line)["key"] for line in journal().splitlines()]
    assert len(keys) == len(set(keys)) == 256
    assert processes_with(str(tmp_path)) == []
    (folder,) = tmp_path.glob("*/random/seed0")
    assert [e.engine for e in load_record(folder / "record.json").evaluations] == ["vllm"]
