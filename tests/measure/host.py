"""CPU seconds that a rank spends on a step of the paper's size beside its models: credit of the whole step, gathered.

    OMP_NUM_THREADS=1 python -m torch.distributed.run --standalone --nproc-per-node=2 tests/measure/host.py

128 prompts of 4 completions of 8,096 tokens, half of them on each of two gloo ranks; models are left out (scores are
random numbers), the rest is the trainer's own `assign_credit` and `micro_batches`. Prints seconds of rank 0 by
function, each without the others of the list, and the sum.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import distributed as dist

from baselines.tropd import TrOPD
from harness.config.sweep import planned_runs
from harness.scoring import Completion, ScoreRequest, pad_completions
from harness.training import ranks, trainer
from harness.training.recorder import StepLog
from harness.training.step import micro_batches
from harness.training.trainer import DistillationTrainer, Written
from harness.types import Rollout, TokenSignal

PROMPTS, SAMPLES, TOKENS, PROMPT = 128, 4, 8096, 300
PARTS = (
    (ranks, "gather_tensors"),
    (trainer, "token_batch"),
    (trainer, "endings_of"),
    (TrOPD, "credit"),
    (trainer, "compute_coefficients"),
    (trainer, "step_metrics"),
    (trainer, "stop_metrics"),
    (trainer, "mismatch_metrics"),
    (trainer, "pass_metrics"),
)


class Clock:
    """CPU seconds by name; what is inside another one counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inside: list[float] = []

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counted."""

        @functools.wraps(function)
        def counted(*arguments: Any, **keywords: Any) -> Any:
            self._inside.append(0.0)
            started = time.process_time()
            found = function(*arguments, **keywords)
            spent = time.process_time() - started
            self.seconds[name] += spent - self._inside.pop()  # type: ignore[assignment]
            if self._inside:
                self._inside[-1] += spent
            return found

        return counted


class RandomScorer:
    """Scores without a model."""

    def score(self, completions: list[Completion], request: ScoreRequest) -> Any:
        """See Scorer."""
        mask, _ = pad_completions(completions)
        random = -torch.rand(mask.shape)
        signal = TokenSignal(random, stop_logprobs=random - 3)

        def support(mask: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
            count = int(mask.sum())
            return torch.zeros(count, top_k).long(), torch.zeros(count, top_k)

        return SimpleNamespace(signal=signal, support=support)


def written(rng: np.random.Generator, slots: range) -> Written:
    """Random completions of these prompts, all of them of full length."""

    def rollout(slot: int, sample: int) -> Rollout:
        ids, logprobs = rng.integers(0, 150_000, TOKENS).tolist(), (-rng.exponential(0.5, TOKENS)).tolist()
        stops = tuple((-5 - rng.exponential(0.5, TOKENS)).tolist())
        prompt = tuple(range(PROMPT))
        return Rollout(prompt, tuple(ids), 0, tuple(logprobs), 0, "length", f"{slot}", sample, stop_logprobs=stops)

    return Written([rollout(slot, sample) for slot in slots for sample in range(SAMPLES)])


def main() -> None:
    """One rank."""
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    (run,) = planned_runs(["setting=deepseek_math", "method=tropd", "seed=0", "hydra.mode=RUN"])
    share = PROMPTS // ranks.count()
    slots = range(ranks.index() * share, (ranks.index() + 1) * share)
    rows = [slot * SAMPLES + sample for slot in slots for sample in range(SAMPLES)]
    own, clock = written(np.random.default_rng(ranks.index()), slots), Clock()
    fake = object.__new__(DistillationTrainer)
    fake.__dict__ |= {"method": TrOPD(prefix_schedule="none"), "setting": run.setting, "run_seed": 0}
    fake.__dict__ |= {"step_log": StepLog(), "budget": SimpleNamespace(add=lambda metrics: None)}
    fake.__dict__ |= {"state": SimpleNamespace(global_step=0)}
    fake.machinery = SimpleNamespace(teacher_scorer=RandomScorer(), engine_is_trainer=True, stop_ids=(0,))
    for home, name in PARTS:
        setattr(home, name, clock.timed(name, getattr(home, name)))
    with torch.no_grad():
        step = clock.timed("the rest of assign_credit", fake.assign_credit)(own, 0.5, rows)
        clock.timed("micro_batches", micro_batches)(step, [SAMPLES] * share)
    if ranks.index() == 0:
        for name, seconds in clock.seconds.most_common():
            print(f"{name:<28}{seconds:>6.2f} s")
        print(f"{'all':<28}{sum(clock.seconds.values()):>6.2f} s")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
