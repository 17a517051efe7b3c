"""The program of an engine that does what its calls say, in place of harness.rollout.engine_program; no vLLM."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.errors import UserError
from harness.rollout.engine_program import main
from harness.rollout.vllm import Answer, Call, Done, EngineOptions, Logprobs


def expected(seed: int, bias: int, tokens: int = 3, top_k: int = 2) -> Answer:
    """What an engine with this bias as its weights answers; log-probs hold what is easily lost on the way."""
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(tokens, 1 + top_k)).astype(np.float32)
    values[0] = np.float32("-inf"), np.float32("nan"), np.float32(1e-42)  # the last is below the smallest normal number
    ids = draw.integers(0, 2**40, (tokens, top_k))
    written = Logprobs(values[:, 0], ids, values[:, 1:])
    return Answer(tuple(seed + bias + i for i in range(tokens)), False, written, None)


class FakeEngine:
    """In place of an InProcessBackend. `options.source` is a folder, in which it notes what it was asked.

    A call's `do` is "once:…" (only if no engine of the folder has done it yet) or simply one of die, stop (the whole
    process), fail, refuse.
    """

    def __init__(self, options: EngineOptions, threads: int) -> None:
        self.folder = Path(options.source)
        if (self.folder / "refuses").exists():
            raise UserError("this engine does not start.")
        self.max_length, self.bias = options.max_length, 0
        self.digests: dict[str, str] = {}

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        (self.folder / "closed").touch()

    def note(self, text: str) -> None:
        with (self.folder / "noted").open("a") as file:
            file.write(f"{text}\n")

    def run(self, calls: Sequence[Call], done: Done, more: Callable[[], Sequence[Call]]) -> None:
        """One call a step, the last one first."""
        at_work = list(enumerate(calls))
        count = len(calls)
        while at_work:
            self.note(f"at work {len(at_work)}")
            index, call = at_work.pop()
            time.sleep(call.options.get("seconds", 0))
            self.do(call.options.get("do", ""))
            self.note(f"answered {call.options['seed']}")
            done(index, expected(call.options["seed"], self.bias, call.options.get("tokens", 3)))
            time.sleep(call.options.get("seconds_after", 0))
            for new in more() if call.options.get("looks", True) else ():
                at_work.append((count, new))
                count += 1

    def do(self, what: str) -> None:
        if what.startswith("once:"):
            if (self.folder / "done once").exists():
                return
            (self.folder / "done once").touch()
            what = what.removeprefix("once:")
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if what == "fail":
            raise ValueError("as it was told")
        if what == "refuse":
            raise UserError("as it was told.")

    def tell(self, method: str, **arguments: Any) -> Any:
        return getattr(self, method)(**arguments)

    def reset_prefix_cache(self) -> None:
        self.note("reset")

    def harness_load(self, weights: Any) -> int:
        """Keeps all tensors to the end, as vLLM keeps a layer's; the number of them. Dies at the first, once, where a
        file says so.
        """
        kept = []
        for pair in weights:
            kept.append(pair)
            if (self.folder / "dies at load").exists():
                (self.folder / "dies at load").unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        for name, tensor in kept:
            self.digests[name] = digest(tensor)
            if name == "bias":
                self.bias = int(tensor)
        return len(kept)

    def told(self) -> dict[str, str]:
        return self.digests

    def environment(self) -> dict[str, str]:
        return dict(os.environ)


def digest(tensor: torch.Tensor) -> str:
    """Of a tensor's bytes, with its type and shape."""
    raw = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return f"{hashlib.sha256(raw).hexdigest()} {tensor.dtype} {tuple(tensor.shape)}"


if __name__ == "__main__":
    sys.exit(main(FakeEngine))
