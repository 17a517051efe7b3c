"""The sampler beside `model.generate` on the weights of a real model: 16 and 64 ragged prompts, 32 new tokens each.

    python tests/measure/real_sampler.py MODEL [--dtypes bfloat16,float32] [--rows 16,64] [--repeats 5] [--publish FILE]

Prints tokens per CPU-second of one thread (both sides alternating, median), and the floor: what a step takes if it did
nothing but read every weight once at the memory bandwidth that is measured beside it, as a sum over many values.
With `.venv-vllm/bin/python … --vllm` vLLM's CPU build is measured instead, by the clock, since its work is done in
threads and processes of its own.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from harness.models.loading import load_model
from harness.rollout import RolloutRequest, Sampling
from harness.rollout.hf import HFEngine
from harness.seeds import generator_of
from tests.measure.sampler import with_generate

NEW_TOKENS = 32
PROMPT_TOKENS = (16, 64)  # the shortest and the longest prompt
TEXT_IDS = 10_000  # prompts are of the first ids: ordinary pieces of text, no end token among them


def prompts(count: int) -> list[RolloutRequest]:
    """Ragged prompts of random text ids."""
    rng = generator_of("real_sampler")
    lengths = rng.integers(*PROMPT_TOKENS, size=count)
    return [
        RolloutRequest(str(i), tuple(rng.integers(1000, TEXT_IDS, size=n).tolist()), seed=i)
        for i, n in enumerate(lengths)
    ]


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Of one repetition."""
    start = clock()
    work()
    return clock() - start


def bandwidth() -> float:
    """Bytes a CPU-second that one thread reads from memory."""
    values = torch.ones(2**27)
    return 4 * len(values) / statistics.median(seconds(lambda: values.sum()) for _ in range(5))


def floor(model: PreTrainedModel, rows: int, speed: float) -> float:
    """Tokens per CPU-second if every weight is read once a step, whatever is computed with it."""
    size = sum(weight.numel() * weight.itemsize for weight in model.parameters())  # a tied head once
    return rows / (size / speed)


def measure(model: PreTrainedModel, rows: int, repeats: int) -> tuple[float, float]:
    """Tokens per CPU-second: generate's and the harness's."""
    asked, size = prompts(rows), model.config.get_text_config().vocab_size
    engine, sampling = HFEngine(model, size), Sampling(NEW_TOKENS)
    engine.generate(asked[:1], sampling)  # what is done once a model
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        times[0].append(seconds(lambda: with_generate(model, asked, (size - 1,), NEW_TOKENS)))
        times[1].append(seconds(lambda: engine.generate(asked, sampling)))
    generate, own = (rows * NEW_TOKENS / statistics.median(some) for some in times)
    return generate, own


def measure_vllm(name: str, dtype: str, rows: Sequence[int], repeats: int) -> list[float]:
    """Tokens per second by the clock, for each number of rows."""
    from vllm import LLM, SamplingParams, TokensPrompt

    llm = LLM(name, dtype=dtype, max_model_len=256, enforce_eager=True, enable_prefix_caching=False)
    sampling = SamplingParams(temperature=1.0, max_tokens=NEW_TOKENS, ignore_eos=True, logprobs=0)
    found = []
    for count in rows:
        asked = [TokensPrompt(prompt_token_ids=list(request.prompt_ids)) for request in prompts(count)]
        llm.generate(asked, sampling, use_tqdm=False)
        times = [
            seconds(lambda a=asked: llm.generate(a, sampling, use_tqdm=False), time.perf_counter)  # type: ignore[misc]
            for _ in range(repeats)
        ]
        found.append(count * NEW_TOKENS / statistics.median(times))
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model")
    parser.add_argument("--dtypes", default="bfloat16,float32")
    parser.add_argument("--rows", default="16,64")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--publish", type=Path)
    parser.add_argument("--vllm", action="store_true")
    given = parser.parse_args()
    counts = [int(rows) for rows in given.rows.split(",")]
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    lines = (
        []
        if given.vllm
        else ["| weights | rows | generate | harness | ratio | floor |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    )
    for dtype in given.dtypes.split(","):
        if given.vllm:
            rates = measure_vllm(given.model, dtype, counts, given.repeats)
            lines += [
                f"vLLM, {dtype}, {rows} rows: {rate:,.0f} tokens/s" for rows, rate in zip(counts, rates, strict=True)
            ]
            continue
        model = load_model(given.model, dtype=dtype)
        for rows in counts:
            generate, own = measure(model, rows, given.repeats)
            best = floor(model, rows, bandwidth())
            lines.append(f"| {dtype} | {rows} | {generate:,.0f} | {own:,.0f} | {own / generate:.2f} | {best:,.0f} |")
            print(lines[-1], file=sys.stderr)
    print("\n".join(lines))
    if given.publish is not None:
        command = "python tests/measure/real_sampler.py " + " ".join(sys.argv[1:])
        given.publish.write_text(f"Made by `{command}`.\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
