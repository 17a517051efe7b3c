"""The first ten minutes on a GPU: every path of training, engine and ranks on the shipped models, a line each.

    python tests/gpu/first_ten_minutes.py                from the checkout's root; one card, then two
    python tests/gpu/first_ten_minutes.py --only LoRA    the paths with this in their name

A line says: seconds, the most that a card held, the loss of the first step and how far it is from the same run's on the
CPU, the largest difference between engine and trainer (nats), or the last line of the error. Before them, the head's
product beside its floor. Without a GPU, the paths that a CPU can take are run there, those of vLLM where its CPU build
is installed (.venv-vllm); the others are named and skipped. The exit code is 1 if a path failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from harness.numerics.logprobs import Head, logits_of

CARDS = torch.cuda.device_count() if torch.cuda.is_available() else 0
DEVICE = "cuda" if CARDS else "cpu"
GIB = 2**30
HEAD = (151_936, 1536, 4096) if CARDS else (16_384, 256, 512)  # vocabulary, hidden width, tokens


@dataclass(frozen=True)
class Way:
    """One path: what is given to `python -m harness.run`."""

    name: str
    arguments: tuple[str, ...]
    cards: int = 1  # that it needs
    cpu: bool = False  # without a card it runs on the CPU: ranks by gloo, vLLM by its CPU build
    vllm: bool = False
    beside: tuple[str, ...] | None = field(default=None)  # what the CPU is given to compare with; None: not compared


COMMON = ("hydra/launcher=basic", "hydra.mode=RUN", "seed=0", "setting.steps=3", "engine.micro_batch_prompts=8")
BARE = "evaluation=none"
TROPD, OPD, GKD = ("method=tropd", BARE), ("method=opd", BARE), ("method=gkd", "method.student_share=1", BARE)
NARROW = "setting.dtype=bfloat16"
VLLM, SERVER = (*TROPD, NARROW, "engine=vllm"), (*OPD, NARROW, "engine=server")
RANKS, FSDP2 = ("launch.num_processes=2",), "launch.accelerate_config=conf/accelerate/fsdp2.yaml"
TWO_RANKS = (*TROPD, *RANKS)
LORA = ("setting.lora_rank=8", "setting.learning_rate=1e-4")
EAGER, SLEEP = ("engine.vllm.eager=true",), ("engine.vllm.sleep=true",)
TRANSFER = ("engine.vllm.weight_sync=transfer",)
WAYS = (
    Way("hf, float32", TROPD, cpu=True, beside=TROPD),
    Way("hf, bfloat16", (*TROPD, NARROW), cpu=True, beside=TROPD),
    Way(
        "hf, bfloat16, checkpointing, evaluated",
        ("method=eopd", NARROW, "engine.gradient_checkpointing=true"),
        cpu=True,
    ),
    Way("hf, whole vocabulary", GKD, cpu=True, beside=GKD),
    Way("hf, LoRA", (*OPD, *LORA), cpu=True, beside=OPD),
    Way(
        "hf, teacher on the CPU, overlap",
        (*TROPD, "engine.teacher_device=cpu", "engine.overlap=true"),
        cpu=True,
        beside=TROPD,
    ),
    Way("vllm, two engines", VLLM, cpu=True, vllm=True, beside=TROPD),
    Way("vllm, no CUDA graphs, importance cap", (*VLLM, *EAGER, "setting.importance_cap=2"), cpu=True, vllm=True),
    Way("vllm, LoRA", (*OPD, NARROW, "engine=vllm", *LORA), cpu=True, vllm=True),
    Way("vllm, teacher by transformers, sleep", (*VLLM, "engine.teacher=hf", *SLEEP), vllm=True),
    Way("vllm, two engines that sleep", (*VLLM, *SLEEP), vllm=True),
    Way("vllm, trained and evaluated", ("method=tropd", NARROW, "engine=vllm"), cpu=True, vllm=True),
    Way("server, weights by the disk", SERVER, cpu=True, vllm=True, beside=OPD),
    Way("server, weights by CUDA IPC", (*SERVER, *TRANSFER, "engine.vllm.transfer_backend=ipc"), vllm=True),
    Way("two visible cards, one process", OPD, 2, beside=OPD),
    Way("teacher on cuda:1", (*GKD, "engine.teacher_device=cuda:1"), 2, beside=GKD),
    Way("DDP, two ranks", TWO_RANKS, 2, cpu=True, beside=TROPD),
    Way("FSDP2, two ranks", (*TWO_RANKS, FSDP2), 2, cpu=True, beside=TROPD),
    Way("vllm on two ranks", (*VLLM, *RANKS), 2, cpu=True, vllm=True, beside=TROPD),
    Way("vllm on two ranks, asleep in turns", (*VLLM, *SLEEP, *RANKS), 2, vllm=True),
    Way("evaluated by vllm on two cards", ("method=opd", NARROW, "engine.evaluation=vllm"), 2, vllm=True),
    Way(
        "server on the second card, weights by NCCL",
        (*SERVER, *TRANSFER, "engine.server.devices=[1]", "engine.server.teacher_devices=[1]"),
        2,
        vllm=True,
    ),
)


def why_not(way: Way) -> str | None:
    """What this machine lacks for a path."""
    if way.cards > CARDS and not (way.cpu and CARDS == 0):
        return f"needs {way.cards} GPU{'s' if way.cards > 1 else ''}, there {'is' if CARDS == 1 else 'are'} {CARDS}"
    if way.vllm and importlib.util.find_spec("vllm") is None:
        return "vLLM is not installed"
    return None


def seconds_a_token(work: object, tokens: int) -> float:
    """Of the second of two calls, the device waited for."""
    assert callable(work)
    for _ in range(2):
        if CARDS:
            torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        if CARDS:
            torch.cuda.synchronize()
    return (time.perf_counter() - began) / tokens


def head_lines() -> Iterator[str]:
    """The head's product in chunks of several sizes, beside one bfloat16 product of the same shape, its floor."""
    vocabulary, width, tokens = HEAD
    weight = 0.02 * torch.randn(vocabulary, width, device=DEVICE, dtype=torch.bfloat16)
    hidden = torch.randn(tokens, width, device=DEVICE, dtype=torch.bfloat16)
    flops = 2 * vocabulary * width
    floor = seconds_a_token(lambda: hidden @ weight.T, tokens)
    speed = f"{1e6 * floor:.2f} us a token ({flops / floor / 1e12:.1f} TFLOP/s)"
    yield f"head of {vocabulary:,} x {width:,}, bfloat16: floor {speed}"
    for precision in ("high", "highest"):
        torch.set_float32_matmul_precision(precision)
        for rows in (110, 512, 2048):

            def chunks(rows: int = rows) -> None:
                for start in range(0, tokens, rows):
                    logits_of(hidden[start : start + rows], Head(weight))

            took = seconds_a_token(chunks, tokens)
            times = f"{1e6 * took:8.2f} us, {took / floor:6.1f} floors"
            yield f"  logits_of, float32 products {precision:<7} {rows:>5} rows: {times}"


@contextmanager
def watched() -> Iterator[list[int]]:
    """The most that any card held meanwhile, bytes: of all processes, as the driver counts."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            for card in range(CARDS):
                free, total = torch.cuda.mem_get_info(card)
                peak[0] = max(peak[0], total - free)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def run(arguments: tuple[str, ...], device: str, cards: int, limit_s: float) -> tuple[list[dict[str, float]], str]:
    """The rows of metrics.jsonl, and the last line of the error, empty without one."""
    with tempfile.TemporaryDirectory() as folder:
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(cards)))} if CARDS else {}
        environment = {**os.environ, **visible, "HF_HUB_OFFLINE": "1", "NCCL_DEBUG": "WARN"}
        command = [sys.executable, "-m", "harness.run", *COMMON, f"engine.device={device}", f"results_dir={folder}"]
        command += arguments
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, timeout=limit_s, check=False
            )
            said = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        except subprocess.TimeoutExpired:
            said = [f"not done within {limit_s:.0f} s"]
        rows = [
            json.loads(line) for path in Path(folder).rglob("metrics.jsonl") for line in path.read_text().splitlines()
        ]
        errors = [line for path in Path(folder).rglob("error.log") for line in path.read_text().splitlines()[-1:]]
        return rows, " ".join(errors or said)


def line_of(way: Way, expected: dict[tuple[str, ...], float], ends: float) -> tuple[str, bool]:
    """What is said of one path, and whether it did not fail."""
    if reason := why_not(way):
        return f"{way.name:<40} skipped: {reason}", True
    if time.monotonic() > ends:
        return f"{way.name:<40} skipped: no time left", True
    if way.beside is not None and way.beside not in expected:
        rows, error = run(way.beside, "cpu", 0, max(60.0, ends - time.monotonic()))
        expected[way.beside] = rows[0]["loss"] if not error else float("nan")
    began = time.monotonic()
    with watched() as peak:
        rows, error = run(way.arguments, DEVICE, max(1, way.cards), max(60.0, ends - time.monotonic()))
    took = f"{way.name:<40} {time.monotonic() - began:6.1f} s"
    if error or not rows:
        return f"{took}  FAILED: {error or 'it wrote no metrics'}", False
    held = f"{peak[0] / GIB:5.1f} GiB" if CARDS else "no card"
    loss = f"loss {rows[0]['loss']:.5f}"
    if way.beside is not None:
        loss += f" (the CPU's {rows[0]['loss'] - expected[way.beside]:+.1e})"
    return f"{took}  {held}  {loss}  mismatch {max(row.get('mismatch/max', 0.0) for row in rows):.1e}", True


def main() -> int:
    """Prints the lines; 1 if a path failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="paths with this in their name")
    parser.add_argument("--limit-s", type=float, default=570.0, help="after which no path is begun")
    given = parser.parse_args()
    ends = time.monotonic() + given.limit_s
    card = torch.cuda.get_device_name() if CARDS else "no GPU: on the CPU"
    print(f"torch {torch.__version__}, {card}, {CARDS} visible", flush=True)
    for said in head_lines():
        print(said, flush=True)
    if CARDS:
        torch.cuda.empty_cache()
    expected: dict[tuple[str, ...], float] = {}
    fine = True
    for way in WAYS:
        if given.only in way.name:
            said, ok = line_of(way, expected, ends)
            print(said, flush=True)
            fine &= ok
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
