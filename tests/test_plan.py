"""The plan's arithmetic by hand, what it says binds, and its command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.config.sweep import planned_runs
from harness.models.sizes import ModelSize
from harness.plan import main
from harness.planning.estimate import make_plan, seconds_of, work_of
from harness.planning.forecast import show
from harness.planning.hardware import Hardware, load_hardware
from harness.planning.memory import ACTIVATION_FACTOR, BASE_BYTES, WEIGHTS_FACTOR, Work, predict

HARDWARE = Hardware(1, 80, flops=1e6, bytes_per_s=1e4, link_bytes_per_s=1e3, compute_share=0.5, bandwidth_share=0.25)


def test_seconds_by_hand() -> None:
    """100 and 1,000 parameters in float32, 4 sequences in batches of 2, prompts of 2 and completions of 6 tokens."""
    student = ModelSize(100, cached_numbers=5, vocab_size=10, hidden=4, layers=1, intermediate=8, attention=4)
    teacher = ModelSize(1000, cached_numbers=5, vocab_size=10, hidden=4, layers=1, intermediate=8, attention=4)
    seconds = seconds_of(Work(4, 2, 2, 6, 4, "float32"), student, teacher, HARDWARE)
    # decoding reads the weights 2 x 6 times (4,800 bytes) and 4 x (6·2 + 36/2) cached positions of 20 bytes (2,400)
    assert seconds.floor["rollout"] == pytest.approx(7200 / 1e4)
    assert seconds.expected["rollout"] == pytest.approx(7200 / 1e4 / 0.25)
    # 32 tokens x 2 x 1,000 parameters, and attention 2·1·4·8 for each
    assert seconds.floor["scoring"] == pytest.approx((64_000 + 32 * 64) / 1e6)
    # three forward passes of the student, and AdamW reads and writes 7 numbers a weight
    assert seconds.floor["update"] == pytest.approx(3 * (6_400 + 32 * 64) / 1e6 + 2800 / 1e4)
    assert "communication" not in seconds.floor
    assert seconds.bounds == {"rollout": "weights", "scoring": "operations", "credit": "host", "update": "optimiser"}


def test_no_token_is_decoded_faster_than_the_host_starts_its_kernels() -> None:
    """2 batches of 6 positions of a model of 10 layers, on hardware that needs no time itself."""
    model = ModelSize(100, cached_numbers=5, vocab_size=10, hidden=4, layers=10, intermediate=8, attention=4)
    work, fast = Work(4, 2, 2, 6, 4, "float32"), replace(HARDWARE, flops=1e15, bytes_per_s=1e15)
    started = 12 * (1.3e-3 + 10 * 0.23e-3)
    seconds = seconds_of(work, model, model, fast)
    assert seconds.expected["rollout"] == pytest.approx(started) and seconds.floor["rollout"] < 1e-9
    assert seconds.bounds["rollout"] == "kernels"
    graphed = seconds_of(replace(work, graphed=True), model, model, fast)
    assert graphed.expected["rollout"] < 1e-9 and graphed.bounds["rollout"] == "weights"
    # a CPU starts one operation after it has done the one before; bytes are read in 0.72 / 0.25 s
    on_cpu = seconds_of(work, replace(model, layers=1), model, replace(HARDWARE, gpu=False))
    assert on_cpu.expected["rollout"] == pytest.approx(0.72 / 0.25 + 12 * 1.53e-3)
    # 4 sequences of 6 tokens on each of 2 ranks: every rank works on all 48
    both = seconds_of(work, model, model, replace(fast, ranks=2))
    assert both.expected["credit"] == pytest.approx(48 * 0.35e-6)


def test_vllm_with_graphs_starts_no_kernel_one_by_one() -> None:
    given = ["setting=deepseek_math", "method=opd", "seed=0", "hydra.mode=RUN", "engine=vllm"]
    eager, graphs = (planned_runs([*given, f"engine.vllm.eager={value}"])[0] for value in ("true", "false"))
    assert not work_of(eager, 1).graphed and work_of(graphs, 1).graphed


def test_memory_by_hand() -> None:
    """Everything but the update is small: moments, gradients, the head's gradient, activations, one chunk."""
    student = ModelSize(1_000_000, cached_numbers=4, vocab_size=100, hidden=16, layers=2, intermediate=32, attention=16)
    peak = predict(student, student, Work(2, 2, 10, 30, 2, "float32"))
    assert peak.weights == 8_000_000
    assert peak.adamw == pytest.approx(WEIGHTS_FACTOR * 8e6)
    activations = 4 * (2 * 40) * 2 * (12 * 16 + 4 * 32)
    expected = WEIGHTS_FACTOR * (4e6 + 4 * 1600) + ACTIVATION_FACTOR * activations + 4 * 100 * 60
    assert peak.phases["update"] - BASE_BYTES == pytest.approx(expected, abs=10)
    assert peak.extra == peak.adamw + max(peak.phases.values())


def test_shards_cut_the_student_and_checkpointing_the_activations() -> None:
    student = ModelSize(1_000_000, 4, 100, 16, 20, 32, 16)
    whole = predict(student, student, Work(2, 2, 10, 30, 2, "bfloat16"))
    cut = predict(student, student, Work(2, 2, 10, 30, 2, "bfloat16", shards=8))
    # masters and two moments of 4 bytes; shards are masters themselves and stand among the weights
    assert whole.adamw == pytest.approx(WEIGHTS_FACTOR * 12e6) and cut.adamw == pytest.approx(WEIGHTS_FACTOR * 1e6)
    assert (whole.weights, cut.weights) == (2_000_000 + 2_000_000, 4_000_000 / 8 + 2_000_000)
    # gradients as the weights and, while AdamW works, in float32; largest weight's temporaries are of 2 x 4 x 1,600
    # bytes
    expected = WEIGHTS_FACTOR * 2e6 + 4e6 + WEIGHTS_FACTOR * 2 * 4 * 1600
    assert whole.phases["optimiser"] - BASE_BYTES == pytest.approx(expected, abs=10)
    again = predict(student, student, Work(2, 2, 10, 30, 2, "bfloat16", checkpointing=True))
    assert again.phases["update"] < whole.phases["update"]


def test_the_papers_setting_on_one_node(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["setting=deepseek_math", "method=opd,tropd", "engine.micro_batch_prompts=1"]
    assert show(planned_runs(arguments), load_hardware("h100_x8"), "h100_x8") == 0
    text = capsys.readouterr().out
    assert "at most 4,145,152 (128 prompts x 4 x 8,096)" in text
    assert "deepseek_math, tropd" in text and "opd" not in text.split("tropd")[0]  # the one that takes most
    assert "update binds; it does not fit: give a smaller engine.micro_batch_prompts" in text
    assert "all 6 trained runs" in text
    smaller = [*arguments, "engine.gradient_checkpointing=true", "engine.rows_per_batch=64"]
    show(planned_runs(smaller), load_hardware("h100_x8"), "h")
    assert "does not fit" not in capsys.readouterr().out


def test_fsdp_is_read_from_the_launcher_file() -> None:
    given = ["setting=deepseek_math", "method=opd", "seed=0", "hydra.mode=RUN"]
    fsdp = "launch.accelerate_config=conf/accelerate/fsdp2.yaml"
    plain, cut = (
        make_plan(planned_runs(arguments)[0], load_hardware("h100_x8")) for arguments in (given, [*given, fsdp])
    )
    assert cut.memory.adamw == pytest.approx(plain.memory.adamw * 2 / 3 / 8, rel=1e-3)  # no masters beside the shards
    assert cut.seconds.floor["communication"] > plain.seconds.floor["communication"]


@pytest.mark.parametrize("setting", ["qwen_gsm8k", "qwen3_math_24gb"])
def test_the_ladder_fits_its_gpu(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    show(planned_runs([f"experiment={setting}"]), load_hardware("rtx4090_x1"), "rtx4090_x1")
    assert "does not fit" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hardware=abacus"], "hardware='abacus': must be one of cpu_core, h100_x1"),
        (["setting=tiny_cpu"], "hardware=… is missing"),
        (["hardware=cpu_core", "method=student"], "nothing is trained"),
        (["hardware=cpu_core", "sttting=tiny_cpu"], "unknown key 'sttting'"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1


def test_a_finished_run_beside_its_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = map(json.loads, Path("results/tiny_cpu/runs.jsonl").read_text().splitlines())
    trained = next(record for record in records if record["counters"]["steps"])
    (tmp_path / "record.json").write_text(json.dumps(trained))
    assert main([str(tmp_path), "hardware=cpu_core"]) == 0
    text = capsys.readouterr().out
    assert "rollout, s a step" in text and "peak memory, GiB" in text


def test_a_card_works_on_larger_chunks_than_a_cpu() -> None:
    """2,048 positions of 151,936 ids in float32, 1.16 GiB, in place of 64 MiB; hidden states are kept likewise."""
    (run,) = planned_runs(["setting=deepseek_math", "method=opd", "seed=0", "hydra.mode=RUN"])
    card, cpu = load_hardware("h100_x1"), load_hardware("cpu_core")
    on_card, on_cpu = make_plan(run, card).memory.phases, make_plan(run, cpu).memory.phases
    chunk = 4 * 151_936 * 2048 - 2**26
    assert on_card["update"] - on_cpu["update"] == chunk
    assert on_card["scoring"] - on_cpu["scoring"] == chunk + 80 * 2**30 // 16 - 2**28
