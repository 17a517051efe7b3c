"""How much of a step's micro-batches is padding, in the order of the step and sorted by length, and what that costs.

    python tests/measure/padding.py

One rank's share of a step of the paper's size: 64 completions, log-normal in length with the given median and a spread
of e^0.7 (reasoning models' answers spread about as much), ended at 8,096 tokens, behind prompts of 60 to 300. Seconds
are those of one CPU for forward and backward passes of a small random Qwen2, all lengths divided by 16. Means of ten
steps; the two orders alternate.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from unittest import mock

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from harness.divergences import topk_forward_kl
from harness.models.head import bind_token_forward
from harness.numerics.credit import Coefficients
from harness.training import step as steps
from harness.training.batches import token_batch
from harness.training.step import Step, Support, micro_batches, order_by_length
from harness.types import Rollout

SEQUENCES, LONGEST, SMALLER, REPEATS = 64, 8096, 16, 10
MEDIANS, SIZES = (500, 2000), (4, 8, 16)


def in_order(lengths: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """As it was: the order of the step."""
    return list(range(len(lengths)))


def drawn(rng: np.random.Generator, median: int) -> list[tuple[int, int]]:
    """Tokens of prompts and completions."""
    completions = np.minimum(LONGEST, rng.lognormal(np.log(median), 0.7, SEQUENCES).astype(int) + 1)
    return list(zip(rng.integers(60, 301, SEQUENCES).tolist(), completions.tolist(), strict=True))


def step_of(lengths: Sequence[tuple[int, int]], rng: np.random.Generator) -> Step:
    """Random tokens of these lengths, an advantage on each."""
    rollouts = [
        Rollout(
            tuple(rng.integers(0, 1000, prompt).tolist()),
            tuple(rng.integers(0, 1000, completion).tolist()),
            prefix_len=0,
            logprobs=(-1.0,) * completion,
            policy_version=0,
            stop_reason="stop",
            prompt_id=str(i),
            sample_index=0,
        )
        for i, (prompt, completion) in enumerate(lengths)
    ]
    batch = token_batch(rollouts, [np.random.default_rng(0)] * len(rollouts))
    ones = batch.on_policy_mask.float()
    nothing = Support(torch.zeros(0, 1).long(), torch.zeros(0, 1))
    coefficients = Coefficients(ones, torch.zeros_like(ones), torch.zeros_like(ones))
    return Step(rollouts, batch, coefficients, divergence=topk_forward_kl, support=nothing)


def padding(lengths: Sequence[int], order: Sequence[int], size: int) -> float:
    """The share of padded places among all of a step's micro-batches."""
    pieces = [[lengths[i] for i in order[first : first + size]] for first in range(0, len(order), size)]
    return 1 - sum(lengths) / sum(len(piece) * max(piece) for piece in pieces)


def seconds(model: Qwen2ForCausalLM, step: Step, size: int) -> float:
    """CPU seconds of the passes of a step."""
    batches = micro_batches(step, [size] * (SEQUENCES // size))
    started = time.process_time()
    for batch in batches:
        loss, _ = model(**batch)
        loss.backward()
        model.zero_grad()
    return time.process_time() - started


def main() -> None:
    """Prints a row per length and size."""
    torch.set_num_threads(1)
    config = Qwen2Config(
        vocab_size=1000,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = Qwen2ForCausalLM(config)
    bind_token_forward(model, 1000)
    print("| median tokens | sequences a micro-batch | padding, % | sorted, % | CPU s | sorted, CPU s |")
    print("|---:|---:|---:|---:|---:|---:|")
    for median in MEDIANS:
        for size in SIZES:
            rng = np.random.default_rng(0)
            shares: dict[str, list[float]] = {"step": [], "sorted": []}
            spent: dict[str, list[float]] = {"step": [], "sorted": []}
            for _ in range(REPEATS):
                lengths = drawn(rng, median)
                whole, sizes = [prompt + completion for prompt, completion in lengths], [size] * (SEQUENCES // size)
                small = step_of([(p // SMALLER + 1, c // SMALLER + 1) for p, c in lengths], rng)
                for name, function in (("step", in_order), ("sorted", order_by_length)):
                    shares[name].append(padding(whole, function(whole, sizes), size))
                    with mock.patch.object(steps, "order_by_length", function):
                        spent[name].append(seconds(model, small, size))
            percent = [f"{100 * np.mean(values):.0f}" for values in shares.values()]
            means = [f"{np.mean(values):.2f}" for values in spent.values()]
            print("| " + " | ".join([f"{median:,}", str(size), *percent, *means]) + " |", flush=True)


if __name__ == "__main__":
    main()
