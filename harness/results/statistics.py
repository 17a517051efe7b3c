"""Intervals and paired differences from a matrix of scores.

y[s, i] is the score of training seed s on problem i: the mean over the samples of that problem, in [0, 1].

Estimand, with two or more seeds: the mean over the population of problems *and* of training seeds, both taken as
random draws and crossed (every seed meets every problem). With one seed nothing is known about other seeds; the
estimand is then *this checkpoint only*, the mean over problems, and the interval is clustered by problem.

Variance. Two-way random effects without replication, y = mu + seed + problem + rest (Cochran 1951; Searle, Casella
and McCulloch, Variance Components, 1992, ch. 4):

    Var(mean) = (MS_seed + MS_problem - MS_rest) / (S I)

with a negative estimate of a component set to 0. The degrees of freedom are Satterthwaite's (1946): (sum of the mean
squares used)^2 / sum(MS^2 / df of that MS). The quantile is Student's t.

Accuracies. A symmetric interval undercovers near 0 and 1, so the interval of a mean m in [0, 1] is Clopper and
Pearson's at the effective number of problems n = m (1 - m) / Var, shrunk by (z / t)^2 (Korn and Graubard, Survey
Methodology 24, 1998). It lies in [0, 1], and it has width where no variance can be estimated: with equal scores
everywhere, n is the number of problems; with one problem, n = 1.

Coverage of the nominal 95 %, measured by tests/results/test_statistics.py (2,000 simulations a cell, Monte-Carlo error
0.3 to 0.6): 94.2 to 98.2 % over 3 to 8 seeds, 30 to 200 problems and accuracies 0.1 to 0.9. Known to fall short: three
seeds that differ more than the problems do (92.5 to 93.2 %), 30 problems of which nearly all are always failed (93.8 %).
The paired test rejects 3.8 to 4.8 % at the 5 % level where two methods are equal.

Suffixes: S seeds, I problems, N any leading axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]

CONFIDENCE = 0.95
_TAIL = (1 - CONFIDENCE) / 2
_Z = float(stats.norm.ppf(1 - _TAIL))
_NO_VARIANCE = 1e-24  # rounding leaves about 1e-33; one flipped sample among ten million leaves about 1e-14
_TIE = 1e-9  # relative; nearer mean squares count as equal, so that rounding does not choose the degrees of freedom
SEEDS_AND_PROBLEMS = "problems and training seeds"
CHECKPOINT_ONLY = "this checkpoint only"


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    estimate: float  # mean over seeds and problems
    low: float
    high: float
    standard_error: float  # of the estimate; 0 where no variance can be estimated
    df: float  # Satterthwaite's degrees of freedom
    seeds: int
    problems: int

    @property
    def estimand(self) -> str:
        """What the interval speaks of."""
        return CHECKPOINT_ONLY if self.seeds == 1 else SEEDS_AND_PROBLEMS


@dataclass(frozen=True)
class Difference(Interval):
    """The mean of a - b on the same problems and seeds, its 95 % interval and the test that it is 0."""

    statistic: float  # t = estimate / standard error
    p_value: float  # two-sided


@dataclass(frozen=True)
class MeanVariance:
    """The estimated variance of the grand mean of [N, S, I] scores."""

    mean: Array  # [N]
    variance: Array  # [N]; 0 where none can be estimated
    df: Array  # [N]


def compute_mean_variance(y: Array) -> MeanVariance:
    """The grand mean over [..., S, I], its variance and Satterthwaite's degrees of freedom; see the top of the file.

    The mean squares that enter are MS_seed and MS_problem where they exceed MS_rest, less MS_rest where both do;
    MS_rest alone where neither does. df is at least min(S - 1, I - 1), which the subtraction could undercut; it is
    I - 1 where no variance can be estimated.
    """
    S, I = y.shape[-2:]  # noqa: E741
    mean = y.mean((-2, -1))
    if I == 1:
        return MeanVariance(mean, np.zeros_like(mean), np.ones_like(mean))
    if S == 1:
        variance = y[..., 0, :].var(-1, ddof=1) / I
        return MeanVariance(mean, _drop_rounding(variance), np.full_like(mean, I - 1))
    seed_means, problem_means = y.mean(-1, keepdims=True), y.mean(-2, keepdims=True)
    grand = mean[..., None, None]
    ms_seed = I * ((seed_means - grand) ** 2).sum((-2, -1)) / (S - 1)
    ms_problem = S * ((problem_means - grand) ** 2).sum((-2, -1)) / (I - 1)
    ms_rest = ((y - seed_means - problem_means + grand) ** 2).sum((-2, -1)) / ((S - 1) * (I - 1))
    has_seed, has_problem = (ms > ms_rest * (1 + _TIE) for ms in (ms_seed, ms_problem))
    used_seed, used_problem = np.where(has_seed, ms_seed, 0.0), np.where(has_problem, ms_problem, 0.0)
    used_rest = np.where(has_seed & has_problem, -1.0, np.where(has_seed | has_problem, 0.0, 1.0)) * ms_rest
    total = used_seed + used_problem + used_rest
    spread = used_seed**2 / (S - 1) + used_problem**2 / (I - 1) + used_rest**2 / ((S - 1) * (I - 1))
    variance = _drop_rounding(total / (S * I))
    df = np.divide(total**2, spread, out=np.full_like(spread, I - 1), where=variance > 0)
    return MeanVariance(mean, variance, np.maximum(df, min(S, I) - 1))


def _drop_rounding(variance: Array) -> Array:
    return np.where(variance > _NO_VARIANCE, variance, 0.0)


def accuracy_bounds(estimate: MeanVariance, problems: int) -> tuple[Array, Array]:
    """Low and high ends [N] of the interval of a mean in [0, 1]: Korn and Graubard's, see the top of the file."""
    m = np.clip(estimate.mean, 0.0, 1.0)
    known = (estimate.variance > 0) & (m > 0) & (m < 1)
    n = np.divide(m * (1 - m), estimate.variance, out=np.full_like(m, problems), where=known)
    quantile = np.where(known, stats.t.ppf(1 - _TAIL, estimate.df), _Z)
    n = n * (_Z / quantile) ** 2
    successes, failures = n * m, n * (1 - m)
    low = np.where(successes > 0, stats.beta.ppf(_TAIL, np.maximum(successes, _NO_VARIANCE), failures + 1), 0.0)
    high = np.where(failures > 0, stats.beta.ppf(1 - _TAIL, successes + 1, np.maximum(failures, _NO_VARIANCE)), 1.0)
    return np.minimum(low, m), np.maximum(high, m)


def difference_halfwidths(estimate: MeanVariance, problems: int) -> Array:
    """Half the width [N] of the interval of a paired difference: t times the standard error.

    Where no variance can be estimated (the same difference on every problem, or one problem) it is the largest share
    of other problems that I problems can fail to show: Clopper and Pearson's upper end for 0 of I, 1 - 0.025^(1/I).
    """
    unseen = 1 - _TAIL ** (1 / problems)
    spread = stats.t.ppf(1 - _TAIL, estimate.df) * np.sqrt(estimate.variance)
    return np.where(estimate.variance > 0, spread, unseen)


def mean_interval(y: ArrayLike) -> Interval:
    """The 95 % interval of the mean accuracy over problems and training seeds; with one seed, of this checkpoint only.

    Args:
        y: scores [S, I] in [0, 1], each the mean over the samples of one problem under one seed.
    """
    scores = _check_scores(y)
    estimate = compute_mean_variance(scores)
    low, high = accuracy_bounds(estimate, scores.shape[1])
    mean, error = float(estimate.mean), math.sqrt(estimate.variance)
    return Interval(mean, float(low), float(high), error, float(estimate.df), *scores.shape)


def paired_difference(y_a: ArrayLike, y_b: ArrayLike) -> Difference:
    """The mean of a - b over problems and training seeds, with its 95 % interval and a two-sided t test of 0.

    The estimand is that of `mean_interval`, of the difference: seed s of a is paired with seed s of b (same prompts,
    same sampling streams) and problem i with problem i, so what they share drops out. With one seed it compares these
    two checkpoints only.

    Args:
        y_a, y_b: scores [S, I] in [0, 1] on the same seeds and problems.
    """
    a, b = _check_scores(y_a), _check_scores(y_b)
    if a.shape != b.shape:
        raise ValueError(f"a paired difference needs the same seeds and problems, got {a.shape} and {b.shape}")
    estimate = compute_mean_variance(a - b)
    mean, df = float(estimate.mean), float(estimate.df)
    half = float(difference_halfwidths(estimate, a.shape[1]))
    error = half / float(stats.t.ppf(1 - _TAIL, df))
    statistic = mean / error
    p_value = float(2 * stats.t.sf(abs(statistic), df))
    seeds, problems = a.shape
    low, high = max(mean - half, -1.0), min(mean + half, 1.0)
    return Difference(mean, low, high, error, df, seeds, problems, statistic, p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979) in the order given; rejecting those <= alpha bounds the family-wise error."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _check_scores(y: ArrayLike) -> Array:
    scores = np.asarray(y, dtype=np.float64)
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"scores must be a matrix of seeds x problems, got shape {scores.shape}")
    if not (np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1):
        raise ValueError("scores must be finite and in [0, 1]")
    return scores
