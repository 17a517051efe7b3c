"""What limits a run's training: its steps, or another budget, of which the steps are then the most that it may take.

setting.operations       floating-point operations, as harness.results.flops estimates them
setting.student_tokens   tokens that the student writes
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.errors import UserError

BUDGETS = ("operations", "student_tokens")  # fields of Setting


def budget_of(setting: Mapping[str, Any]) -> tuple[str, float] | None:
    """The field of BUDGETS that a Setting by value has, and how much of it; None: its steps are the budget."""
    return next(((key, setting[key]) for key in BUDGETS if setting.get(key) is not None), None)


def check_budget_fields(setting: Mapping[str, Any]) -> None:
    """UserError for a budget that is none, and for two of them."""
    given = {key: setting[key] for key in BUDGETS if setting[key] is not None}
    for key, amount in given.items():
        if amount <= 0:
            raise UserError(f"setting.{key}={amount}: must be positive, or null.")
    if len(given) > 1:
        raise UserError(f"{' and '.join(f'setting.{key}' for key in given)} are set; a run has one budget.")
