"""transformers' `generate`, the harness's own sampler and vLLM side by side on the shipped tiny models, each in a
process of its own.

    make .venv-vllm/.installed && OMP_NUM_THREADS=1 .venv-vllm/bin/python tests/measure/engines.py [--repeats 5]

Prints start-up, memory, tokens per second of wall clock and of CPU for rollouts, tokens per second for scoring, and
what the second pass of scoring costs by row and by sequence (harness.scoring.vllm.ROW_COST_POSITIONS).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

STUDENT = "harness/tiny/checkpoints/student"
VOCAB = 64
TOP_K = 8
MAX_NEW_TOKENS = 60
ENGINES = {
    "generate": "transformers generate",
    "own": "own sampler (engine=hf)",
    "vllm": "vLLM in process (engine=vllm)",
}


@contextlib.contextmanager
def opened(name: str, model: Any) -> Iterator[Any]:
    """The engine and the scorer behind a name of ENGINES."""
    from harness.config.sweep import planned_runs
    from harness.engines.backends import Source
    from harness.engines.opening import open_engine

    (run,) = planned_runs(["hydra.mode=RUN", "method=opd", f"engine={'vllm' if name == 'vllm' else 'hf'}"])
    source = Source(STUDENT, None, "float32")
    with open_engine(run.engine, source, VOCAB, run.results_dir, longest=128, role="student", model=model) as found:
        yield found


def clocked(work: Callable[[], int], repeats: int) -> tuple[float, float]:
    """Tokens per second of wall clock and of CPU: medians, the first repetition left out."""
    wall, cpu = [], []
    for _ in range(repeats + 1):
        began, began_cpu = time.perf_counter(), time.process_time()
        tokens = work()
        wall.append(tokens / (time.perf_counter() - began))
        cpu.append(tokens / (time.process_time() - began_cpu))
    return statistics.median(wall[1:]), statistics.median(cpu[1:])


def measure(name: str, repeats: int) -> dict[str, Any]:
    """All figures of one engine, in this process."""
    began, began_cpu = time.perf_counter(), time.process_time()
    from sampler import requests, with_generate

    from harness.models.loading import load_model, load_tokenizer, stop_ids_of
    from harness.results.provenance import peak_memory_bytes
    from harness.rollout import Sampling
    from harness.scoring import Completion, ScoreRequest

    model = load_model(STUDENT)
    stop_ids = stop_ids_of(model, load_tokenizer(STUDENT))
    found: dict[str, Any] = {}
    with opened(name, model) as engine:
        found["start_s"], found["start_cpu_s"] = time.perf_counter() - began, time.process_time() - began_cpu
        sampling = Sampling(MAX_NEW_TOKENS, stop_ids=stop_ids)
        for count in (32, 256):
            asked = requests(model, count, False, stop_ids)
            if name == "generate":
                found[f"rollout_{count}"] = clocked(lambda asked=asked: with_generate(model, asked, stop_ids), repeats)  # type: ignore[misc]
                continue
            rollouts = engine.engine.generate(asked, sampling)
            completions = [Completion(r.prompt_ids, r.completion_ids) for r in rollouts]
            tokens = sum(len(c.completion_ids) for c in completions)
            found[f"rollout_{count}"] = clocked(
                lambda asked=asked: sum(len(r.completion_ids) for r in engine.engine.generate(asked, sampling)),  # type: ignore[misc]
                repeats,
            )
            for top_k in (0, TOP_K):
                request = ScoreRequest(top_k)
                found[f"score_{count}_{top_k}"] = clocked(
                    lambda c=completions, r=request, n=tokens: engine.scorer.score(c, r) and n,  # type: ignore[misc]
                    repeats,
                )
        if name == "vllm":
            found |= second_pass(engine, completions, repeats)
    found["peak_mib"] = peak_memory_bytes() / 2**20
    return found


def second_pass(engine: Any, completions: list[Any], repeats: int) -> dict[str, float]:
    """CPU milliseconds of one row's request, and of one position of a sequence's request."""
    scorer, backend = engine.scorer, engine.backend
    rows = [scorer._row_call(c, len(c.completion_ids) // 2, TOP_K) for c in completions]
    sequences = [scorer._call(c, TOP_K) for c in completions]
    positions = sum(len(call.prompt_ids) for call in sequences)

    def run(calls: list[Any], count: int) -> Callable[[], int]:
        return lambda: backend.run(calls, lambda index, answer: None) or count

    return {
        "row_ms": 1000 / clocked(run(rows, len(rows)), repeats)[1],
        "position_ms": 1000 / clocked(run(sequences, positions), repeats)[1],
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=ENGINES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        print(json.dumps(measure(arguments.only, arguments.repeats)))
        return
    from harness.results.provenance import _cpu_name

    print(f"{_cpu_name()}, {os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}")
    found = {}
    for name in ENGINES:
        command = [sys.executable, __file__, "--only", name, "--repeats", str(arguments.repeats)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{'':<32}{'start-up':>16}{'memory':>10}{'32 rollouts':>20}{'256 rollouts':>20}{'256 scored':>20}"
        f"{f'with top {TOP_K}':>20}"
    )
    print(f"{'':<32}{'s (CPU s)':>16}{'MiB':>10}" + f"{'tokens/s (CPU s)':>20}" * 4)
    for name, row in found.items():
        cells = [row.get(key) for key in ("rollout_32", "rollout_256", "score_256_0", f"score_256_{TOP_K}")]
        rates = "".join(f"{f'{c[0]:,.0f} ({c[1]:,.0f})' if c else '':>20}" for c in cells)
        start = f"{row['start_s']:.1f} ({row['start_cpu_s']:.1f})"
        print(f"{ENGINES[name]:<32}{start:>16}{row['peak_mib']:>10,.0f}{rates}")
    row, position = found["vllm"]["row_ms"], found["vllm"]["position_ms"]
    print(
        f"second pass of vLLM's scorer: {row:.2f} CPU ms a row, {position:.3f} a position of a whole sequence: a row "
        f"costs {row / position:.0f}"
    )


if __name__ == "__main__":
    main()
