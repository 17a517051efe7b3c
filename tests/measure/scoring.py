"""What it takes to score 256 sequences of 512 tokens with the 64 most probable tokens at each position: by a server as
JSON and as arrays, and in process as vLLM's lists and as arrays.

    OMP_NUM_THREADS=1 .venv-vllm/bin/python tests/measure/scoring.py [--sequences 256] [--vocab 4096]

The teacher is a small random model, so that what is measured is the way of the numbers, not their making. Per way:
seconds by the clock, CPU seconds of this process and of the server's, and bytes of requests and answers together.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from harness.models.private_names import LOGPROBS_PROCESSOR, UPDATE_PROMPT_LOGPROBS
from harness.results.provenance import _cpu_name
from harness.rollout import vllm as rollout_vllm
from harness.rollout.prompt_arrays import keep_prompt_arrays
from harness.rollout.server import ServerBackend, ServerProcess
from harness.rollout.vllm import EngineOptions, InProcessBackend
from harness.scoring import Completion, ScoreRequest
from harness.scoring.vllm import VLLMScorer
from tests.conftest import random_model

PROMPT, LENGTH, TOP_K = 128, 512, 64
SYLLABLES = [a + b for a in "bcdfghjklmnprstvwz" for b in "aeiou"]  # 90: words of two are as long as real tokens are


def stored(folder: Path, vocab: int) -> str:
    """A random model with a tokenizer of as many words."""
    words = [f" {SYLLABLES[i // 90 % 90]}{SYLLABLES[i % 90]}{i // 8100 or ''}" for i in range(vocab)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    random_model(0, vocab=vocab).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=words[1]).save_pretrained(folder)
    return str(folder)


class Counting(ServerBackend):
    """Counts what goes over the wire, both ways, without HTTP's own lines."""

    bytes = 0

    @contextlib.contextmanager
    def _reply(self, path: str, data: bytes | None, limit_s: float) -> Iterator[Callable[..., bytes]]:
        with super()._reply(path, data, limit_s) as read:

            def counted(*size: int) -> bytes:
                text = read(*size)
                self.bytes += len(text)
                return text

            self.bytes += len(data or b"")
            yield counted


def cpu_seconds(group: int | None) -> float:
    """Of this process, and of all that live in a process group."""
    total = time.process_time()
    for entry in Path("/proc").iterdir() if group else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if int(fields[2]) == group:
                    total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def measure(backend: Any, asked: list[Completion], vocab: int, group: int | None = None) -> tuple[list[float], Any]:
    """Seconds and CPU seconds, and what was found."""
    scorer = VLLMScorer(backend, vocab, TOP_K)
    scorer.score(asked[:8], ScoreRequest(TOP_K))  # what is loaded at the first use
    if isinstance(backend, Counting):
        backend.bytes = 0
    began, began_cpu = time.perf_counter(), cpu_seconds(group)
    signal = scorer.score(asked, ScoreRequest(TOP_K)).signal
    return [time.perf_counter() - began, cpu_seconds(group) - began_cpu], signal


def by_server(options: EngineOptions, asked: list[Completion], vocab: int) -> dict[str, tuple[list[float], Any]]:
    """Both ways of one server."""
    found = {}
    process = ServerProcess(options, 1, Path(options.source) / "server.log")
    with Counting(process, None, start_limit_s=600, time_limit_s=3600) as backend:
        assert process._process is not None and backend._packs
        for name, packs in (("server, JSON", False), ("server, arrays", True)):
            backend._packs = packs
            times, signal = measure(backend, asked, vocab, process._process.pid)
            found[name] = ([*times, backend.bytes], signal)
    return found


def in_process(options: EngineOptions, asked: list[Completion], vocab: int) -> dict[str, tuple[list[float], Any]]:
    """vLLM's lists and arrays."""
    read_output, vllms_own, found = rollout_vllm.read_output, UPDATE_PROMPT_LOGPROBS.get(), {}

    def from_lists(output: Any, call: Any) -> Any:
        flat = output.prompt_logprobs
        arrays = type("Arrays", (), {"ids": np.asarray(flat.token_ids), "values": np.asarray(flat.logprobs)})
        output.prompt_logprobs = arrays
        return read_output(output, call)

    with InProcessBackend(options, 1) as backend:
        UPDATE_PROMPT_LOGPROBS.put(LOGPROBS_PROCESSOR.get(), vllms_own)
        rollout_vllm.read_output = from_lists
        found["in process, lists"] = measure(backend, asked, vocab)
        rollout_vllm.read_output = read_output
        keep_prompt_arrays()
        found["in process, arrays"] = measure(backend, asked, vocab)
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sequences", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=4096)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    ids = rng.integers(2, arguments.vocab, size=(arguments.sequences, LENGTH)).tolist()
    asked = [Completion(tuple(row[:PROMPT]), tuple(row[PROMPT:])) for row in ids]
    with tempfile.TemporaryDirectory() as folder:
        source = stored(Path(folder), arguments.vocab)
        options = EngineOptions(source, None, "float32", 2**28, 64, TOP_K, True, True, LENGTH + 8)
        found = by_server(options, asked, arguments.vocab) | in_process(options, asked, arguments.vocab)
    expected = found["in process, arrays"][1]
    print(f"{_cpu_name()}; {len(asked)} sequences of {LENGTH} tokens, top {TOP_K} of {arguments.vocab}")
    print(f"{'':<20}{'seconds':>10}{'CPU s':>10}{'MB':>10}")
    for name, ((seconds, cpu, *sent), signal) in found.items():
        print(f"{name:<20}{seconds:>10.1f}{cpu:>10.1f}{f'{sent[0] / 1e6:.1f}' if sent else '':>10}")
        assert torch.allclose(signal.topk_logprobs, expected.topk_logprobs, atol=1e-4)


if __name__ == "__main__":
    main()
