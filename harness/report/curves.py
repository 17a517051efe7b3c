"""metrics.jsonl of several seeds as one curve with its band. Suffixes: S seeds, N steps, P points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from harness.results.record import CURVE, START

Array = NDArray[np.float64]
Rows = Sequence[Mapping[str, Any]]  # of one run, a row per step

OPERATIONS = "operations"  # of a row: those of its step (harness.results.flops)
AXES: Mapping[str, str] = {
    "step": "optimiser steps",
    "tokens/student": "student tokens",
    OPERATIONS: "operations of the training",
}


@dataclass(frozen=True)
class Curve:
    """A metric of one method: the mean over its seeds at each point, and the lowest and highest seed."""

    label: str
    x: Array  # [P]
    mean: Array  # [P]
    low: Array  # [P]
    high: Array  # [P]
    seeds: int


def build_curve(
    label: str, runs: Sequence[Rows], key: str, axis: str = "step", points: int = 100, window: int = 1
) -> Curve | None:
    """The curve of `key`, or None where no step has a finite value, or no place on the axis, in every run.

    Args:
        runs: the rows of each seed; only steps that all of them report count, so that the mean is over the same seeds
            everywhere. A development score starts at step 0, where one was recorded.
        axis: of AXES. Tokens and operations are sums up to the step, averaged over seeds.
        points: more steps than that are averaged in blocks of equal length before seeds are compared.
        window: of a moving mean over that many of the points of a seed, fewer at the ends; odd.
    """
    values = [_values(rows, key) for rows in runs]
    positions = [dict(_positions(rows, axis)) for rows in runs]
    steps = sorted(set.intersection(*map(set, [*values, *positions]))) if values else []
    if not steps:
        return None
    y = _smooth(np.array([[by_step[step] for step in steps] for by_step in values]), window)
    x = np.array([[by_step[step] for step in steps] for by_step in positions]).mean(0)
    x, y = _blocks(x[None], points)[0], _blocks(y, points)
    return Curve(label=label, x=x, mean=y.mean(0), low=y.min(0), high=y.max(0), seeds=len(runs))


def build_curves(
    metrics: Mapping[str, Sequence[Rows]], key: str, axis: str = "step", points: int = 100, window: int = 1
) -> list[Curve]:
    """The curve of every label that has one."""
    found = [build_curve(label, runs, key, axis, points=points, window=window) for label, runs in metrics.items()]
    return [curve for curve in found if curve is not None]


def _values(rows: Rows, key: str) -> dict[int, float]:
    """step -> value, that of the student before the first step included."""
    found = {int(row["step"]): float(row[key]) for row in rows if _is_finite(row.get(key))}
    start = rows[0].get(START + key.removeprefix(CURVE)) if rows and key.startswith(CURVE) else None
    return {0: float(start), **found} if _is_finite(start) else found


def _positions(rows: Rows, axis: str) -> Sequence[tuple[int, float]]:
    """Steps and where they are on the axis, step 0 at its beginning; nothing where a row does not know."""
    steps = [0, *(int(row["step"]) for row in rows)]
    if axis == "step":
        return [(step, float(step)) for step in steps]
    counts = [float(row[axis]) for row in rows if _is_finite(row.get(axis))]
    if len(counts) < len(rows):
        return []
    return list(zip(steps, [0.0, *np.cumsum(counts).tolist()], strict=True))


def _smooth(values: Array, window: int) -> Array:
    """[S, N] -> [S, N]: at each place the mean of the values that are at most half a window away."""
    half = window // 2
    columns = [values[:, max(0, i - half) : i + half + 1].mean(1) for i in range(values.shape[1])]
    return np.stack(columns, axis=1)


def _blocks(values: Array, points: int) -> Array:
    """[S, N] -> [S, at most P]: means over blocks of consecutive steps, the last of which may be shorter."""
    size = -(-values.shape[1] // points)
    starts = np.arange(0, values.shape[1], size)
    sums = np.add.reduceat(values, starts, axis=1)
    return sums / np.diff([*starts, values.shape[1]])


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
