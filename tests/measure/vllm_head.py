"""vLLM's head in the weights' half precision and in float32, against the harness's own scorer on the same weights.

    OMP_NUM_THREADS=1 PYTHONPATH=. .venv-vllm/bin/python tests/measure/vllm_head.py MODEL

Scores 1,020 tokens of the LICENSE and samples 128, each head in a process of its own. Prints the mean and the largest
difference of log-probs in nats, the share of positions with the same most probable token, and CPU seconds of scoring.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import torch

from harness.files import ROOT
from harness.models.loading import load_model, load_tokenizer
from harness.results.provenance import _cpu_name
from harness.rollout import RolloutRequest, Sampling
from harness.rollout.vllm import EngineOptions, InProcessBackend, VLLMEngine
from harness.scoring import Completion, ScoreRequest
from harness.scoring.hf import HFScorer
from harness.scoring.vllm import VLLMScorer

DTYPE, LENGTH, SEQUENCES, SAMPLED = "bfloat16", 256, 4, 32


class HalfHead(EngineOptions):
    """As vLLM would by itself."""

    def arguments(self) -> dict[str, object]:
        return {name: value for name, value in super().arguments().items() if name != "hf_overrides"}


def measure(source: str, kind: type[EngineOptions]) -> str:
    """A row of the table."""
    ids = load_tokenizer(source)((ROOT / "LICENSE").read_text())["input_ids"]
    rows = [tuple(ids[i * LENGTH : (i + 1) * LENGTH]) for i in range(SEQUENCES)]
    asked = [Completion(row[:1], row[1:]) for row in rows]
    model = load_model(source, None, DTYPE)
    vocab = model.config.vocab_size
    options = kind(source, None, DTYPE, 2**27, SEQUENCES, 8, True, True, LENGTH + 8)
    with InProcessBackend(options, 1) as backend:
        began = time.process_time()
        found = VLLMScorer(backend, vocab, 8).score(asked, ScoreRequest(8)).signal
        seconds = time.process_time() - began
        requests = [RolloutRequest(str(i), row[:64], i) for i, row in enumerate(rows)]
        rollouts = VLLMEngine(backend).generate(requests, Sampling(SAMPLED))
    own = HFScorer(model, vocab)
    expected = own.score(asked, ScoreRequest(8)).signal
    again = own.score([Completion(r.prompt_ids, r.completion_ids) for r in rollouts], ScoreRequest()).signal.logprobs
    apart = (found.logprobs - expected.logprobs).abs()
    sampled = (again - torch.tensor([r.logprobs for r in rollouts])).abs()
    same = (found.topk_ids[..., 0] == expected.topk_ids[..., 0]).float().mean()
    return (
        f"scored {apart.mean():.4f} (at most {apart.max():.3f}), sampled {sampled.mean():.4f} "
        f"({sampled.max():.3f}), most probable token the same {same:.1%}, {seconds:.1f} CPU s"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model")
    parser.add_argument("--only", choices=["half", "float32"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(measure(arguments.model, HalfHead if arguments.only == "half" else EngineOptions))
        return
    print(f"{_cpu_name()}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}, weights in {DTYPE}")
    for head in ("half", "float32"):
        command = [sys.executable, __file__, arguments.model, "--only", head]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(f"{head:<8} {done.stdout.splitlines()[-1]}")


if __name__ == "__main__":
    main()
