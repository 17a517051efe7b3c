"""metrics.jsonl of several seeds as one curve with its band. Suffixes: S seeds, N steps, P points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = Sequence[Mapping[str, Any]]  # of one run, a row per step

AXES: Mapping[str, str] = {
    "step": "optimiser steps",
    "tokens/student": "student tokens",
    "tokens/trained": "student and teacher tokens",
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


def build_curve(label: str, runs: Sequence[Rows], key: str, axis: str = "step", points: int = 100) -> Curve | None:
    """The curve of `key`, or None where no step has a finite value in every run.

    Args:
        runs: the rows of each seed; only steps that all of them report count, so that the mean is over the same seeds
            everywhere.
        axis: of AXES. Token counts are sums up to the step, averaged over seeds.
        points: more steps than that are averaged in blocks of equal length before seeds are compared.
    """
    values = [{int(row["step"]): float(row[key]) for row in rows if _is_finite(row.get(key))} for rows in runs]
    steps = sorted(set.intersection(*map(set, values))) if values else []
    if not steps:
        return None
    y = np.array([[by_step[step] for step in steps] for by_step in values])
    positions = [dict(_positions(rows, axis)) for rows in runs]
    x = np.array([[by_step[step] for step in steps] for by_step in positions]).mean(0)
    x, y = _blocks(x[None], points)[0], _blocks(y, points)
    return Curve(label=label, x=x, mean=y.mean(0), low=y.min(0), high=y.max(0), seeds=len(runs))


def build_curves(metrics: Mapping[str, Sequence[Rows]], key: str, axis: str = "step", points: int = 100) -> list[Curve]:
    """The curve of every label that has one."""
    found = [build_curve(label, runs, key, axis, points=points) for label, runs in metrics.items()]
    return [curve for curve in found if curve is not None]


def _positions(rows: Rows, axis: str) -> Sequence[tuple[int, float]]:
    steps = [int(row["step"]) for row in rows]
    if axis == "step":
        return [(step, float(step)) for step in steps]
    keys = ("tokens/student", "tokens/teacher") if axis == "tokens/trained" else (axis,)
    counts = [sum(float(row.get(key, 0.0)) for key in keys) for row in rows]
    return list(zip(steps, np.cumsum(counts).tolist(), strict=True))


def _blocks(values: Array, points: int) -> Array:
    """[S, N] -> [S, at most P]: means over blocks of consecutive steps, the last of which may be shorter."""
    size = -(-values.shape[1] // points)
    starts = np.arange(0, values.shape[1], size)
    sums = np.add.reduceat(values, starts, axis=1)
    return sums / np.diff([*starts, values.shape[1]])


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
