"""The head at V = 151,936: chunk sizes and arithmetic beside each other, by CPU seconds, memory and error.

    python tests/measure/head.py [--tokens 512] [--width 1536]

Each case is a process of its own, one thread. Per case: CPU seconds of the loss (forward and backward) and of scoring
(log-probs of a token and the top 64); the resident memory that either adds, without the head's own gradient; the
largest error of a log-prob against float64 of the same bfloat16 numbers.

    widened      the head's rows as float32, block by block: what a CPU does, and what every device did
    narrow       bfloat16 operands, float32 sums and result: a GPU's product, played here through float64 (no seconds)
    rounded      a bfloat16 product with a bfloat16 result, as `hidden @ weight.T` gives: for comparison, not used
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import torch

from harness.divergences import topk_forward_kl
from harness.numerics import logprobs
from harness.numerics.logprobs import Head, project
from harness.numerics.loss import Targets, head_loss
from harness.results.provenance import peak_memory_bytes, reset_peak_memory

VOCAB, K, CHECKED = 151_936, 64, 32  # tokens whose error is looked at
CASES = [("widened", 110), ("widened", 512), ("narrow", 512), ("rounded", 512)]


def played(
    a: torch.Tensor, b: torch.Tensor, *, out_dtype: torch.dtype | None = None, out: torch.Tensor
) -> torch.Tensor:
    """What torch.mm with `out_dtype` gives on a GPU."""
    assert out_dtype == torch.float32
    return out.copy_((a.double() @ b.double()).float())


def rounded(
    a: torch.Tensor, b: torch.Tensor, *, out_dtype: torch.dtype | None = None, out: torch.Tensor
) -> torch.Tensor:
    """A product whose result is bfloat16."""
    assert out_dtype == torch.float32
    return out.copy_(a @ b)


def settled() -> int:
    """The resident memory now, bytes; the peak starts here."""
    reset_peak_memory()
    return peak_memory_bytes()


def measure(arithmetic: str, rows: int, tokens: int, width: int) -> None:
    """One case, in this process: prints seconds and MiB of loss and scoring, and the error."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    own_mm = torch.mm
    if arithmetic != "widened":
        logprobs.has_wide_products = lambda kind, dtype: True
        torch.mm = lambda a, b, **how: {"narrow": played, "rounded": rounded}[arithmetic](a, b, **how)
    hidden = torch.randn(tokens, width).bfloat16().requires_grad_()
    weight = torch.empty(VOCAB, width, dtype=torch.bfloat16).normal_(0, 0.04).requires_grad_()
    ids = torch.randint(VOCAB, (tokens, 1))
    before, began = settled(), time.process_time()
    found = project(hidden.detach(), Head(weight.detach()), ids, top_k=K, chunk_rows=rows)
    scoring = time.process_time() - began, peak_memory_bytes() - before
    some = torch.arange(0, tokens, 10)
    support = torch.randint(VOCAB, (len(some), K))
    teacher = torch.full((len(some), K), -5.0)
    one = torch.ones(tokens)
    targets = Targets(ids[:, 0], one, 0 * one, some, torch.ones(len(some)), topk_forward_kl, support, teacher)
    before, began = settled(), time.process_time()
    head_loss(hidden, Head(weight), VOCAB, targets, rows)[0].backward()
    own = VOCAB * width * (4 + 2)  # the head's gradient, in float32 and as it is stored
    loss = time.process_time() - began, peak_memory_bytes() - before - own
    torch.mm = own_mm
    with torch.no_grad():
        truth = hidden[:CHECKED].double() @ weight.double().T
        exact = (truth.gather(-1, ids[:CHECKED])[:, 0] - truth.logsumexp(-1)).float()
    error = (found.logprobs[:CHECKED, 0] - exact).abs().max().item()
    cells = [f"{scoring[0]:.1f}", f"{loss[0]:.1f}", f"{scoring[1] / 2**20:.0f}", f"{max(0, loss[1]) / 2**20:.0f}"]
    said = " | ".join(cells if arithmetic == "widened" else ["–"] * len(cells))
    print(f"| {arithmetic} | {rows} | {said} | {error:.1e} |", flush=True)


def main() -> None:
    """All cases, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--case", nargs=2)
    given = parser.parse_args()
    if given.case:
        measure(given.case[0], int(given.case[1]), given.tokens, given.width)
        return
    print("| arithmetic | rows | scoring, CPU s | loss, CPU s | scoring, MiB | loss, MiB | error, nats |")
    print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
    size = ["--tokens", str(given.tokens), "--width", str(given.width)]
    for arithmetic, rows in CASES:
        subprocess.run([sys.executable, __file__, *size, "--case", arithmetic, str(rows)], check=True)


if __name__ == "__main__":
    main()
