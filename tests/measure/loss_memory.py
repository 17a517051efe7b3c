"""Memory and time of the loss at the paper's vocabulary: 8,192 tokens, hidden 1,536, 151,936 ids.

    python tests/measure/loss_memory.py [--tokens 8192] [--threads 2]

Prints, per case, the peak of the resident memory above that before the loss, without the head's own gradient (0.87 GiB
in float32), after forward and backward; and what `[tokens, vocabulary]` alone would take. Each case is a process of its
own. Exit code 1 if one takes more than 1.5 GiB.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from harness.divergences import topk_forward_kl
from harness.numerics.logprobs import Head
from harness.numerics.loss import Targets, head_loss

VOCAB, WIDTH, K = 151_936, 1_536, 64
LIMIT_GIB = 1.5
CASES = {  # name: (dtype of the weights, share of the tokens with a top-k divergence)
    "K1, float32": (torch.float32, 0.0),
    "K1, bfloat16": (torch.bfloat16, 0.0),
    "K1 and top-64 KL on a tenth, float32": (torch.float32, 0.1),
    "K1 and top-64 KL on all, bfloat16": (torch.bfloat16, 1.0),
}


def measure(case: str, tokens: int) -> None:
    """One case, in this process: prints bytes and CPU seconds."""
    dtype, share = CASES[case]
    hidden = torch.randn(tokens, WIDTH).to(dtype).requires_grad_()
    weight = torch.empty(VOCAB, WIDTH, dtype=dtype).normal_(0, 0.02).requires_grad_()
    rows = torch.arange(int(share * tokens))
    targets = Targets(
        token_ids=torch.randint(VOCAB, (tokens,)),
        policy=torch.randn(tokens) / tokens,
        imitation=torch.zeros(tokens),
        support_rows=rows,
        divergence_weights=torch.ones(len(rows)) / tokens,
        divergence=topk_forward_kl,
        support_ids=torch.randint(VOCAB, (len(rows), K)),
        teacher_logprobs=torch.full((len(rows), K), -5.0),
    )
    before = peak_bytes()
    started = time.process_time()
    loss, _ = head_loss(hidden, Head(weight), VOCAB, targets)
    loss.backward()
    print(peak_bytes() - before, time.process_time() - started)


def peak_bytes() -> int:
    """The largest resident memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.case:
        measure(arguments.case, arguments.tokens)
        return 0
    whole = 4 * arguments.tokens * VOCAB / 2**30
    print(f"{arguments.tokens:,} tokens; [tokens, vocabulary] in float32 alone: {whole:.1f} GiB")
    print(f"{'case':<40}{'extra GiB':>10}{'without the head gradient':>28}{'CPU s':>8}")
    worst = 0.0
    for case, (dtype, _) in CASES.items():
        command = [sys.executable, str(Path(__file__)), "--case", case]
        command += ["--tokens", str(arguments.tokens), "--threads", str(arguments.threads)]
        extra, seconds = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
        # the head's gradient: summed in float32, then one in the weights' type
        own = VOCAB * WIDTH * (4 if dtype == torch.float32 else 4 + dtype.itemsize)
        rest = (extra - own) / 2**30
        worst = max(worst, rest)
        print(f"{case:<40}{extra / 2**30:>10.2f}{rest:>28.2f}{seconds:>8.0f}")
    return 0 if worst <= LIMIT_GIB else 1


if __name__ == "__main__":
    sys.exit(main())
