"""CPU seconds of a decoded token by engine=hf, of a model so narrow that starting its operations is all that is left.

    OMP_NUM_THREADS=1 python tests/measure/decode.py

On a GPU the host starts as many kernels a token, so that no token takes less, whatever the card; the two constants of
harness.planning.estimate (HOST_POSITION_S, HOST_LAYER_S) are the straight line through these. Qwen2 in bfloat16, four
ragged rows, the difference of 120 and 20 tokens, the median of five.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from harness.rollout import RolloutRequest, Sampling
from harness.rollout.hf import HFEngine

LAYERS, VOCABULARY, REPEATS = (7, 14, 28, 36), 64, 5


def engine_of(layers: int) -> HFEngine:
    """A model of this depth and the smallest widths."""
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=12,
        num_key_value_heads=2,
    )
    return HFEngine(Qwen2ForCausalLM(config).bfloat16().eval(), VOCABULARY)


def seconds(engine: HFEngine, tokens: int) -> float:
    """CPU seconds of so many tokens of four completions."""
    requests = [RolloutRequest("p", tuple(range(5, 9 + i)), i) for i in range(4)]
    started = time.process_time()
    engine.generate(requests, Sampling(tokens))
    return time.process_time() - started


def main() -> None:
    """Prints a line per depth, and the straight line."""
    torch.set_num_threads(1)
    found = []
    for layers in LAYERS:
        engine = engine_of(layers)
        seconds(engine, 8)
        found.append(statistics.median((seconds(engine, 120) - seconds(engine, 20)) / 100 for _ in range(REPEATS)))
        print(f"{layers} layers: {1e3 * found[-1]:.1f} ms a token", flush=True)
    slope, start = np.polyfit(LAYERS, found, 1)
    print(f"{1e3 * start:.1f} ms and {1e3 * slope:.2f} ms a layer")


if __name__ == "__main__":
    main()
