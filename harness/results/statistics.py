"""Intervals, paired differences and what a design can see, from a matrix of scores.

y[s, i] is the score of training seed s on problem i: the mean over the samples of that problem, in [0, 1].

Estimand, with two or more seeds: the mean over the population of problems *and* of training seeds, both taken as
random draws and crossed (every seed meets every problem). With one seed nothing is known about other seeds; the
estimand is then *this checkpoint only*, the mean over problems, and the interval is clustered by problem. The mean over
several tasks takes the tasks as given, with equal weight, and their problems and the seeds as random draws.

Variance and quantile: harness/results/variance.py. Nothing here draws random numbers.

Accuracies. A symmetric interval undercovers near 0 and 1, so the interval of a mean m in [0, 1] is Clopper and
Pearson's at the effective number of problems n = m (1 - m) / Var, shrunk by (z / t)^2 (Korn and Graubard, Survey
Methodology 24, 1998). It lies in [0, 1], and it has width where no variance can be estimated: with equal scores
everywhere, n is the number of problems; with one problem, n = 1.

Near 0 and 1 a few problems carry the mean: of 30 hard ones, one that is solved now and then. Its own noise is all that
the variance sees, so n comes out in the hundreds, and the interval excludes what one more solved problem would do.
Where a mean rests on few solved (or failed) problems, n is therefore at most the number of problems, as the data
presentation standards of the US National Center for Health Statistics have it for every proportion (Parker et al.,
Vital and Health Statistics 2(175), 2017). Elsewhere problems that are alike keep the narrower interval that they earn.
Few are fewer than seven, and of fewer than 28 problems fewer than a quarter.

docs/statistics.md states the measured coverage and size; tests/measure/coverage.py measures them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from harness.results.variance import Array, MeanVariance, compute_mean_variance

CONFIDENCE = 0.95
POWER = 0.8  # at which a difference counts as one that a design can see
_ALPHA = 1 - CONFIDENCE
_TAIL = _ALPHA / 2
_Z = float(special.ndtri(1 - _TAIL))
_FEW = 7  # solved or failed problems that a mean rests on; 5 and 6 leave cells below 92 % (tests/measure/coverage.py)
_FEW_SHARE = 0.25  # of the problems; without it the interval of ten problems would widen by half at 25 %
_SMALLEST = 1e-24  # shape of a beta distribution, which must be positive
SEEDS_AND_PROBLEMS = "problems and training seeds"
CHECKPOINT_ONLY = "this checkpoint only"

Scores = ArrayLike | Sequence[ArrayLike]  # [S, I], or such a matrix per task


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    estimate: float  # mean over seeds and problems
    low: float
    high: float
    standard_error: float  # of the estimate; 0 where no variance can be estimated
    df: float  # Satterthwaite's, to plan with; the interval's quantile is of the law in variance.py, not of this t
    seeds: int
    problems: int

    @property
    def estimand(self) -> str:
        """What the interval speaks of."""
        return CHECKPOINT_ONLY if self.seeds == 1 else SEEDS_AND_PROBLEMS


@dataclass(frozen=True)
class Difference(Interval):
    """The mean of a - b on the same problems and seeds, its 95 % interval and the test that it is 0."""

    statistic: float  # estimate / standard error
    p_value: float  # two-sided
    detectable: float  # the smallest true difference that this design finds with 80 % power at 5 %, two-sided
    improvement: Interval  # the chance that a scores higher than b on a problem and seed drawn at random


def accuracy_bounds(estimate: MeanVariance, tasks: Sequence[Array]) -> tuple[Array, Array]:
    """Low and high ends [N] of the interval of a mean in [0, 1]: see the top of the file.

    Args:
        tasks: the scores [N, S, I] of each task that `estimate` was computed from.
    """
    problems = _effective_problems(tasks)
    m = np.clip(estimate.mean, 0.0, 1.0)
    known = (estimate.variance > 0) & (m > 0) & (m < 1)
    n = np.divide(m * (1 - m), estimate.variance, out=np.full_like(m, problems), where=known)
    quantile = np.where(known, estimate.quantile(_ALPHA), _Z)
    n = n * (_Z / quantile) ** 2
    rests_on_few = problems_rested_on(tasks) < min(_FEW, _FEW_SHARE * problems)
    n = np.where(rests_on_few, np.minimum(n, problems), n)
    successes, failures = n * m, n * (1 - m)
    low = np.where(successes > 0, special.betaincinv(np.maximum(successes, _SMALLEST), failures + 1, _TAIL), 0.0)
    high = np.where(failures > 0, special.betainccinv(successes + 1, np.maximum(failures, _SMALLEST), _TAIL), 1.0)
    return np.minimum(low, m), np.maximum(high, m)


def problems_rested_on(tasks: Sequence[Array]) -> Array:
    """How many solved problems carry the mean [N], or how many failed ones, whichever are fewer; 0 at a mean of 0 or 1.

    Kish's effective number (Survey Sampling, 1965) (sum of c)^2 / (sum of c^2), of the problems' contributions c to the
    mean (or to 1 - mean), averaged over seeds; k problems solved always and the others never give k.

    Args:
        tasks: as in `accuracy_bounds`.
    """
    fewer = []
    for scores in (tasks, [1 - y for y in tasks]):
        shares = [y.mean(-2) / y.shape[-1] for y in scores]
        total, squares = sum(c.sum(-1) for c in shares), np.asarray(sum((c**2).sum(-1) for c in shares))
        fewer.append(np.divide(np.square(total), squares, out=np.zeros_like(squares), where=squares > 0))
    return np.minimum(*fewer)


def difference_halfwidths(estimate: MeanVariance, problems: float) -> Array:
    """Half the width [N] of the interval of a paired difference: the quantile times the standard error.

    Where no variance can be estimated (the same difference on every problem, or one problem) it is the largest share
    of other problems that I problems can fail to show: Clopper and Pearson's upper end for 0 of I, 1 - 0.025^(1/I).
    """
    spread = estimate.quantile(_ALPHA) * np.sqrt(estimate.variance)
    return np.where(estimate.variance > 0, spread, 1 - _TAIL ** (1 / problems))


def mean_interval(y: Scores) -> Interval:
    """The 95 % interval of the mean accuracy over problems and training seeds; with one seed, of this checkpoint only.

    Args:
        y: scores [S, I] in [0, 1], each the mean over the samples of one problem under one seed; or a list of such
            matrices, one per task on the same seeds, whose means are averaged with equal weight.
    """
    tasks = _check_scores(y)
    return _interval(compute_mean_variance(*tasks), tasks)


def paired_difference(y_a: Scores, y_b: Scores) -> Difference:
    """The mean of a - b over problems and training seeds, with its 95 % interval and a two-sided test of 0.

    The estimand is that of `mean_interval`, of the difference: seed s of a is paired with seed s of b (same prompts,
    same sampling streams) and problem i with problem i, so what they share drops out. With one seed it compares these
    two checkpoints only.

    The probability of improvement counts, over seeds and problems, where a is above b, ties as one half (Agarwal et
    al., NeurIPS 2021, on pairs). It speaks of how often, the difference of how much.

    Args:
        y_a, y_b: as in `mean_interval`, on the same seeds and problems.
    """
    a, b = _check_scores(y_a), _check_scores(y_b)
    if [task.shape for task in a] != [task.shape for task in b]:
        raise ValueError(f"a paired difference needs the same seeds and problems, got {_shapes(a)} and {_shapes(b)}")
    differences = [left - right for left, right in zip(a, b, strict=True)]
    estimate = compute_mean_variance(*differences)
    wins = [(1 + np.sign(difference)) / 2 for difference in differences]
    improvement = _interval(compute_mean_variance(*wins), wins)
    mean, df = float(estimate.mean), float(estimate.df)
    quantile = float(estimate.quantile(_ALPHA))
    half = float(difference_halfwidths(estimate, _effective_problems(a)))
    error = math.sqrt(estimate.variance) or half / quantile
    statistic = mean / error
    p_value = float(estimate.two_sided_tail(abs(statistic)))
    low, high = max(mean - half, -1.0), min(mean + half, 1.0)
    return Difference(
        estimate=mean,
        low=low,
        high=high,
        standard_error=error,
        df=df,
        seeds=len(a[0]),
        problems=sum(task.shape[1] for task in a),
        statistic=statistic,
        p_value=p_value,
        detectable=min(error * detectable_ratio(quantile, df), 1.0),
        improvement=improvement,
    )


def detectable_ratio(quantile: float, df: float) -> float:
    """The true difference, in standard errors, that exceeds `quantile` estimated standard errors with 80 % power.

    The standard error that was found counts as the true one of the design, and as estimated anew with `df` degrees of
    freedom: P(t' > quantile) = 0.8 for the noncentral t' (Cohen, Statistical Power Analysis, 1988).
    """
    return float(
        optimize.brentq(lambda shift: special.nctdtr(df, shift, quantile) - (1 - POWER), 0.0, 4 * quantile + 4)
    )


def pass_at_k(correct: ArrayLike, samples: int, k: int) -> Array:
    """The chance [S, I] that k of a problem's `samples`, drawn without replacement, hold a correct one.

    1 - C(n - c, k) / C(n, k), unbiased for the chance that k new samples do (Chen et al., arXiv 2107.03374, eq. 1).

    Args:
        correct: successes [S, I] of each problem, out of `samples`.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@k needs 1 <= k <= samples, got k = {k} of {samples} samples")
    failures = samples - np.asarray(correct, dtype=np.float64)
    return 1 - special.binom(failures, k) * (failures >= k) / special.binom(samples, k)


def binomial_standard_error(share: float, trials: int) -> float:
    """One standard error of a share of `trials` independent successes: the least noise that a single run can have.

    Samples of one problem are alike, so for an average over k samples a problem the true noise is larger.
    """
    return math.sqrt(share * (1 - share) / trials)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979) in the order given; rejecting those <= alpha bounds the family-wise error."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _interval(estimate: MeanVariance, tasks: Sequence[Array]) -> Interval:
    low, high = accuracy_bounds(estimate, tasks)
    return Interval(
        estimate=float(estimate.mean),
        low=float(low),
        high=float(high),
        standard_error=math.sqrt(estimate.variance),
        df=float(estimate.df),
        seeds=len(tasks[0]),
        problems=sum(task.shape[1] for task in tasks),
    )


def _effective_problems(tasks: Sequence[Array]) -> float:
    """The number of problems of one task whose mean is as certain as the mean of these tasks' means."""
    return len(tasks) ** 2 / sum(1 / task.shape[-1] for task in tasks)


def _check_scores(y: Scores) -> list[Array]:
    several = isinstance(y, list | tuple) and y and all(np.ndim(task) == 2 for task in y)
    tasks = [np.asarray(task, dtype=np.float64) for task in (y if several else [y])]  # type: ignore[union-attr]
    for scores in tasks:
        if scores.ndim != 2 or scores.size == 0:
            raise ValueError(f"scores must be a matrix of seeds x problems, got shape {scores.shape}")
        if not (np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1):
            raise ValueError("scores must be finite and in [0, 1]")
    if len({len(scores) for scores in tasks}) > 1:
        raise ValueError(f"scores must be on the same seeds in every task, got {_shapes(tasks)}")
    return tasks


def _shapes(tasks: Sequence[Array]) -> str:
    return " and ".join(str(task.shape) for task in tasks)
