"""A dry run checks everything, prints the plan, and touches neither network nor disk; its arithmetic by hand."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from harness.config.methods import register_methods
from harness.config.sweep import planned_runs
from harness.console.commands import exit_code_of
from harness.files import ROOT
from harness.models.sizes import model_size
from harness.planning.forecast import show
from harness.planning.hardware import load_hardware
from harness.results.flops import training_flops
from harness.results.record import Counters
from harness.run import compare


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    register_methods()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a dry run opened a socket")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("HF_HUB_OFFLINE", "BENCHMARK_DATA"):
        monkeypatch.delenv(name, raising=False)


def test_the_papers_setting(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert compare(["experiment=table_qwen3_multi", "dry_run=true", f"results_dir={tmp_path / 'results'}"]) == 0
    text = capsys.readouterr().out
    for part in (
        "stands in for the paper's Qwen3-Nemotron-4B",
        "21 runs, 15 of them trained",
        "at most 4,145,152 completion tokens",  # 128 x 4 x 8,096
        "at most 829,030,400 tokens; all 15: 12,435,456,000",  # x 200; x 15
        "1,720,574,976 + 4,022,468,096 parameters",
        "model lllyx/Qwen3-1.7B-SFT@main",
        "model Qwen/Qwen3-4B@1cfa9a7208912126459214e8b04321603b3df60c",
        "data HuggingFaceH4/aime_2024@2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        "data livecodebench/code_generation_lite@",
        "data/openthoughts3_multi.jsonl, not there yet",
    ):
        assert part in text, part
    assert list(tmp_path.iterdir()) == []


def test_a_tiny_setting_fetches_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert compare(["method=opd,tropd", "seed=0,1", "dry_run=true", f"results_dir={tmp_path / 'results'}"]) == 0
    text = capsys.readouterr().out
    assert "Prompts: 4,096 of harness/tiny/prompts.jsonl" in text
    assert "4 runs, 4 of them trained" in text
    assert "End tokens: 1 '<eos>' (tokenizer) for the student and 1 '<eos>' (tokenizer) for the teacher; " in text
    assert "Would fetch: nothing" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("evaluation.tasks=[aime99]", "Unknown task 'aime99'"),
        ("engine.micro_batch_prompts=5", "engine.micro_batch_prompts=5 does not divide"),
        ("setting.top_k=100", "setting.top_k=100 is larger than the shared vocabulary"),
        ("setting.stepz=3", "unknown key 'setting.stepz'"),
        ("setting=null", "are chosen by a name"),
    ],
)
def test_bad_input(argument: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(lambda: compare(["hydra.mode=RUN", "dry_run=true", argument])) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # embedding 151936·1536; a layer: q 1536² + 1536, k and v 2·(1536·256 + 256), o 1536², 3·1536·8960, norms
        # 2·1536; norm; head
        (
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
            2 * 151936 * 1536 + 28 * (2 * 1536**2 + 1536 + 2 * (1536 * 256 + 256) + 3 * 1536 * 8960 + 2 * 1536) + 1536,
        ),
        ("Skywork/Skywork-OR1-Math-7B", 7_615_616_512),  # the model card of its base, DeepSeek-R1-Distill-Qwen-7B
        # no biases; q and k have a norm of 128 each; the head is the embedding
        (
            "Qwen/Qwen3-4B",
            151936 * 2560 + 36 * (2 * 2560 * 4096 + 2 * 2560 * 1024 + 2 * 128 + 3 * 2560 * 9728 + 2 * 2560) + 2560,
        ),
        ("harness/tiny/checkpoints/student", 78_272),
    ],
)
def test_sizes(name: str, parameters: int) -> None:
    size = model_size(name)
    assert size is not None
    assert size.parameters == parameters


def test_an_unknown_model_has_no_size() -> None:
    assert model_size("nobody/nothing") is None


def test_the_cache_of_a_token() -> None:
    size = model_size("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B")
    assert size is not None
    assert size.cached_numbers == 2 * 28 * 2 * 128  # keys and values, layers, heads, width


def test_operations_by_hand() -> None:
    """Student 10, teacher 100 parameters: 2·10·3 written + 2·100·2 written by the teacher + (2·100 + 6·10)·5 scored =
    1,760.
    """
    assert training_flops(10, 100, Counters(student_tokens=3, teacher_tokens=2, scored_tokens=5)) == 60 + 400 + 1300
    # without scores: 2·100·2 for the writing, 6·10·2 for the update; the data set's text is written by nobody
    assert training_flops(10, 100, Counters(teacher_tokens=2)) == 400 + 120
    assert training_flops(10, 100, Counters(reference_tokens=2, student_scored_tokens=2)) == 120 + 40


def test_memory_is_the_plans_and_knows_of_the_engine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One memory model: the line is that of `harness.plan` (of a CPU, since no card is known), and a cache of 8 rows is
    smaller than one of 512.
    """
    given = ["experiment=table1_ablation", "method=opd,tropd", "seed=0", "engine.micro_batch_prompts=1"]
    lines = {}
    for rows in (512, 8):
        compare([*given, f"engine.rows_per_batch={rows}", "dry_run=true", f"results_dir={tmp_path}"])
        lines[rows] = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("Memory of a rank"))
        show(planned_runs([*given, f"engine.rows_per_batch={rows}"]), load_hardware("cpu_core"), "cpu_core")
        assert lines[rows].split("models")[1].split(";")[0] in capsys.readouterr().out
    of_rollout = {rows: float(line.split("rollout ")[1].split(",")[0]) for rows, line in lines.items()}
    assert of_rollout[8] < of_rollout[512] / 10


def test_every_model_of_a_setting_has_a_size() -> None:
    for path in (ROOT / "conf" / "setting").glob("[!_]*.yaml"):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(":")
            built = ".cache/" in value  # by tests/real/models.py
            if key in ("student", "teacher") and "???" not in value and not built:
                assert model_size(value.split("#")[0].strip()) is not None, line


def test_a_budget_is_said_and_bounds_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(["method=opd", "seed=0", "setting.operations=1e10", "setting.steps=400", "dry_run=true"]) == 0
    shown = capsys.readouterr().out
    assert "Budget: setting.operations=1e+10 a run, within 2%; the steps are the most" in shown
    assert "Work: at most 1e+10 FLOP a run" in shown
