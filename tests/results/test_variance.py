"""The law of the mean's error against its definition: random numbers, and the cases where it is Student's t."""

import numpy as np
import pytest
from scipy import stats

from harness.results.variance import MeanVariance, compute_mean_variance


def law(share: float, rest_df: float, seeds: int) -> MeanVariance:
    one = np.ones(1)
    return MeanVariance(one, one, one, share * one, rest_df * one, seeds)


@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
def test_where_the_seeds_are_all_of_the_variance_it_is_students_t(seeds: int) -> None:
    """w = 1 and nu without end: T = normal / sqrt(x) with x ~ chi2(S - 1) / (S - 1)."""
    assert law(1.0, 1e7, seeds).quantile(0.05)[0] == pytest.approx(stats.t.isf(0.025, seeds - 1), rel=0.002)


def test_where_no_seed_component_shows_it_is_students_t() -> None:
    assert law(0.0, 29, 3).quantile(0.05)[0] == pytest.approx(stats.t.isf(0.025, 29), rel=1e-12)


@pytest.mark.parametrize(("share", "rest_df", "seeds"), [(0.3, 199, 3), (0.7, 29, 3), (0.9, 29, 2), (0.5, 99, 5)])
def test_quantile_and_tail_are_those_of_random_draws(share: float, rest_df: float, seeds: int) -> None:
    rng, draws = np.random.default_rng(0), 400_000
    x = rng.chisquare(seeds - 1, draws) / (seeds - 1)
    t = np.abs(rng.standard_t(rest_df, draws)) * np.sqrt(share / x + 1 - share)
    quantile = law(share, rest_df, seeds).quantile(0.05)
    assert (t > quantile[0]).mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / draws))
    assert law(share, rest_df, seeds).two_sided_tail(quantile) == pytest.approx(0.05, abs=1e-9)


def test_a_stack_of_matrices_is_each_of_them() -> None:
    rng = np.random.default_rng(2)
    stack = rng.random((6, 3, 20)) + 0.3 * rng.random((6, 3, 1))
    whole = compute_mean_variance(stack)
    for index, y in enumerate(stack):
        alone = compute_mean_variance(y)
        assert (whole.mean[index], whole.variance[index], whole.df[index]) == (alone.mean, alone.variance, alone.df)
        assert whole.quantile(0.05)[index] == pytest.approx(float(alone.quantile(0.05)), rel=1e-9)
