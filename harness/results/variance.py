"""The variance of a mean over problems and training seeds, and the law of the mean's error in units of it.

y[s, i] is the score of training seed s on problem i. Two-way random effects without replication, crossed because every
seed meets every problem: y = mu + seed + problem + rest (Searle, Casella and McCulloch, Variance Components, 1992, ch.
4),

    Var(mean) = (MS_seed + MS_problem - MS_rest) / (S I)

with a negative estimate of a component set to 0. The mean over several tasks is the mean of the tasks' means: their
seeds are the same, so MS_seed / (S I) becomes the variance of the seeds' averages over S; their problems are not, so
the other two terms add up, each divided by the square of the number of tasks.

Law. T = (mean - mu) / standard error is no Student's t: with S = 3 the seeds' mean square has 2 degrees of freedom, and
Satterthwaite's approximation undercovers where it comes out small by chance. So where a seed
component shows (MS_seed > MS_rest) that mean square is integrated over its fiducial distribution (Tsui and Weerahandi,
JASA 84, 1989; Hannig, Iyer and Patterson, JASA 101, 2006) and the rest of the variance counts as known to its own
degrees of freedom nu:

    P(|T| > t) = E_x[ P(|t_nu| > t / sqrt(w / x + 1 - w)) ],   x ~ chi2(S - 1) / (S - 1),   w = MS_seed's share

Where none shows, w = 0 and T is Student's. Nothing is drawn: E_x is a fixed quadrature, so equal scores give equal
intervals to the last bit.

Suffixes: S seeds, I problems, N any leading axes, X nodes of the quadrature.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Array = NDArray[np.float64]

_NO_VARIANCE = 1e-24  # rounding leaves about 1e-33; one flipped sample among ten million leaves about 1e-14
_TIE = 1e-9  # relative; nearer mean squares count as equal, so that rounding does not choose the degrees of freedom
_NODES = 64  # of the quadrature; a quantile is off by less than 0.2 % (tests/results/test_variance.py)
_NEWTON_STEPS = 30  # four to eight are made
_CONVERGED = 1e-12  # relative change of a quantile


@dataclass(frozen=True)
class MeanVariance:
    """The estimated variance of the grand mean of [N, S, I] scores, and the law of its error."""

    mean: Array  # [N]
    variance: Array  # [N]; 0 where none can be estimated
    df: Array  # [N], Satterthwaite's of the whole variance: to be read, and to plan with
    seed_share: Array  # [N], w above; 0 without a seed component
    rest_df: Array  # [N], nu above
    seeds: int

    def two_sided_tail(self, t: Array | float) -> Array:
        """P(|T| > t) [N] for t >= 0."""
        return _two_sided_tail(t, self.seed_share, self.rest_df, self.seeds - 1)

    def quantile(self, two_sided: float) -> Array:
        """t [N] with P(|T| > t) = two_sided: Newton's steps on log P against log t, from Student's quantile."""
        quantile = np.array(special.stdtrit(self.rest_df, 1 - two_sided / 2))
        shows = np.asarray(self.seed_share > 0)
        if not shows.any():
            return quantile
        t, share, df = quantile[shows], self.seed_share[shows], self.rest_df[shows]
        for _ in range(_NEWTON_STEPS):
            tail, density = _two_sided_tail_and_density(t, share, df, self.seeds - 1)
            change = np.log(tail / two_sided) * tail / (t * density)
            t = t * np.exp(change)
            if (np.abs(change) < _CONVERGED).all():
                break
        quantile[shows] = t
        return quantile


def compute_mean_variance(*tasks: Array) -> MeanVariance:
    """The mean of the tasks' grand means over [..., S, I], its variance and the law of its error.

    Args:
        tasks: one task's scores, or those of several that are averaged with equal weight: the same seeds, each its own
            problems.
    """
    S = tasks[0].shape[-2]
    mean = np.mean([y.mean((-2, -1)) for y in tasks], axis=0)
    zero = np.zeros_like(mean)
    if any(y.shape[-1] == 1 for y in tasks):  # one problem says nothing about others
        return MeanVariance(mean=mean, variance=zero, df=zero + 1, seed_share=zero, rest_df=zero + 1, seeds=S)
    if S == 1:
        variances = [y[..., 0, :].var(-1, ddof=1) / y.shape[-1] for y in tasks]
        variance, df = _add(variances, [y.shape[-1] - 1 for y in tasks])
        return MeanVariance(
            mean=mean,
            variance=np.where(variance > _NO_VARIANCE, variance, 0.0),
            df=df,
            seed_share=zero,
            rest_df=df,
            seeds=S,
        )
    seed = np.mean([y.mean(-1) for y in tasks], axis=0).var(-1, ddof=1) / S
    squares = [_problem_and_rest(y) for y in tasks]
    problem, problem_df = _add([p for p, _ in squares], [y.shape[-1] - 1 for y in tasks])
    rest, rest_df = _add([r for _, r in squares], [(S - 1) * (y.shape[-1] - 1) for y in tasks])
    return _combine(mean, (seed, problem, rest), (zero + S - 1, problem_df, rest_df), S)


def _combine(
    mean: Array, terms: tuple[Array, Array, Array], dfs: tuple[Array, Array, Array], seeds: int
) -> MeanVariance:
    """Adds MS_seed and MS_problem where they exceed MS_rest, less MS_rest where both do; MS_rest alone where neither
    does.
    """
    seed, problem, rest = terms
    has_seed, has_problem = (term > rest * (1 + _TIE) for term in (seed, problem))
    used = [
        np.where(has_seed, seed, 0.0),
        np.where(has_problem, problem, 0.0),
        np.where(has_seed & has_problem, -1.0, np.where(has_seed | has_problem, 0.0, 1.0)) * rest,
    ]
    total = used[0] + used[1] + used[2]
    known = total > _NO_VARIANCE
    spread = sum(term**2 / df for term, df in zip(used, dfs, strict=True))
    # at least the fewest degrees of freedom of any part, which the subtraction of MS_rest could undercut
    df = np.divide(total**2, spread, out=np.array(dfs[1]), where=known)
    df = np.maximum(df, np.minimum(dfs[0], dfs[1]))
    share = np.divide(used[0], total, out=np.zeros_like(total), where=known)
    rest_df = np.where(known & ~has_seed & ~has_problem, dfs[2], dfs[1])
    return MeanVariance(
        mean=mean,
        variance=np.where(known, total, 0.0),
        df=df,
        seed_share=np.minimum(share, 1.0),
        rest_df=rest_df,
        seeds=seeds,
    )


def _problem_and_rest(y: Array) -> tuple[Array, Array]:
    """MS_problem / (S I) and MS_rest / (S I), each [N]."""
    S, I = y.shape[-2:]  # noqa: E741
    centred = y - y.mean(-1, keepdims=True)  # seeds' means removed: what is left are problems and rest
    problem_means = centred.mean(-2)
    problem = (problem_means**2).sum(-1) / (I - 1) / I
    rest = ((centred - problem_means[..., None, :]) ** 2).sum((-2, -1)) / ((S - 1) * (I - 1)) / (S * I)
    return problem, rest


def _add(terms: Sequence[Array], dfs: Sequence[int]) -> tuple[Array, Array]:
    """The sum over tasks, over the square of their number, and Satterthwaite's degrees of freedom of it."""
    total, spread = np.zeros_like(terms[0]), np.zeros_like(terms[0])
    for term, df in zip(terms, dfs, strict=True):
        total, spread = total + term, spread + term**2 / df
    satterthwaite = np.divide(total**2, spread, out=np.full_like(total, sum(dfs)), where=spread > 0)
    return total / len(terms) ** 2, satterthwaite


@functools.cache
def _quadrature(df: int) -> tuple[Array, Array]:
    """Nodes [X] of chi2(df) / df and their weights [X]: the midpoint rule for v, where P(chi2 < node) = v^2 (dense near
    0).
    """
    v = (np.arange(_NODES) + 0.5) / _NODES
    return stats.chi2.ppf(v**2, df) / df, 2 * v / _NODES


def _two_sided_tail(t: Any, share: Any, df: Any, seed_df: int) -> Any:
    """P(|T| > t), elementwise over [N] or of numbers; see the law at the top of the file."""
    if seed_df == 0:
        return 2 * special.stdtr(df, -t)
    return _two_sided_tail_and_density(t, share, df, seed_df)[0]


def _two_sided_tail_and_density(t: Any, share: Any, df: Any, seed_df: int) -> tuple[Any, Any]:
    """P(|T| > t) and minus its derivative, the density of |T| at t."""
    nodes, weights = _quadrature(seed_df)
    t, share, df = np.asarray(t)[..., None], np.asarray(share)[..., None], np.asarray(df)[..., None]
    scale = np.sqrt(share / nodes + 1 - share)
    z = t / scale
    peak = np.exp(special.gammaln((df + 1) / 2) - special.gammaln(df / 2)) / np.sqrt(df * np.pi)
    density = peak * (1 + z**2 / df) ** (-(df + 1) / 2)  # of Student's t
    return (2 * special.stdtr(df, -z)) @ weights, (2 * density / scale) @ weights
