"""When a run is done: after `setting.steps` updates, or when another budget of the Setting is spent.

With a budget of operations (harness.results.flops, estimated from the run's own tokens) or of student tokens the run's
clock is what it has spent: `progress`, the learning rate's schedule and the end follow it. A method whose step is
cheaper than another's thus makes more steps of the same schedule, and every run ends within half a step of the same
cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from harness.config.settings import Setting
from harness.errors import UserError
from harness.results.flops import EQUAL_COST, counters_of, known_sizes, training_flops


class Budget:
    """What of a run's training is used; `add` is told of every step before its update."""

    def __init__(self, setting: Setting, rows: Sequence[Mapping[str, float]] = ()) -> None:
        """`rows`: the metrics of the steps that were made before, of a run that goes on."""
        self.setting = setting
        self.unit, self.amount = setting.budget or ("", math.inf)
        self.sizes = known_sizes(vars(setting))
        self.spent = self.last = 0.0  # of the budget's unit: all steps, and the last one
        self.operations = 0.0  # of all steps; 0 where the models' sizes are not known
        for row in rows:
            self.add(row)
        self.most_steps = len(rows) if self.is_spent else setting.steps  # all that the run may have

    def add(self, metrics: Mapping[str, float]) -> None:
        """A step with these metrics is paid for. UserError for a budget of operations of models of unknown size."""
        if self.sizes is None and self.unit == "operations":
            raise UserError("setting.operations needs models whose sizes are known; give local folders.")
        tokens = counters_of([metrics])
        operations = training_flops(*self.sizes, tokens) if self.sizes is not None else 0.0
        self.last = operations if self.unit == "operations" else float(tokens.student_tokens)
        self.spent, self.operations = self.spent + self.last, self.operations + operations

    def progress(self, steps_done: int) -> float:
        """The share of the budget that is used, in [0, 1]."""
        return min(1.0, self.spent / self.amount) if self.unit else steps_done / self.setting.steps

    @property
    def is_spent(self) -> bool:
        """Whether the end is nearer now than after another step of the last one's cost. Never of a budget of steps,
        whose end the Trainer knows.
        """
        return self.spent + self.last / 2 > self.amount

    def rate_share(self, step: int) -> float:
        """The share of the learning rate that update `step`, counted from 0, is made with.

        Warm-up rises linearly from 1/W at the first of W updates to 1 at the last; a rate of 0 at the first, as the
        libraries have it, would be an update lost. The cosine then falls from 1 towards 0, which it would reach one
        step after the last. Of another budget than of steps it falls with the share that is spent.
        """
        setting = self.setting
        if step < setting.warmup_steps:
            return (step + 1) / setting.warmup_steps
        if setting.lr_schedule == "constant":
            return 1.0
        done = (step - setting.warmup_steps) / max(1, setting.steps - setting.warmup_steps)
        if self.unit:
            done = self.progress(step)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))

    def check_spent(self, steps_done: int) -> None:
        """At the end: RuntimeError unless another budget than of steps was met within EQUAL_COST."""
        if not self.unit:
            return
        budget, share = f"setting.{self.unit}={self.amount:g}", self.spent / self.amount
        if steps_done >= self.setting.steps and not self.is_spent:
            raise RuntimeError(f"setting.steps={steps_done} updates spent {share:.0%} of {budget}; allow more steps")
        if not 1 / EQUAL_COST <= share <= EQUAL_COST:
            raise RuntimeError(
                f"the run spent {share:.3f} of {budget}, since a step is {self.last / self.amount:.1%} of it; make the "
                "steps smaller or the budget larger"
            )
