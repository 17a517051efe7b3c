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


def crossed(seed: float, problem: float, rest: float) -> np.ndarray:
    """3 seeds x 4 problems with the mean squares given, by orthogonal effects.

    Seeds -a, 0, a: MS_seed = 4 (2 a^2) / 2 = 4 a^2. Problems b, b, -b, -b: MS_problem = 3 (4 b^2) / 3 = 4 b^2.
    Rest (1, -2, 1) x (c, -c, 0, 0): MS_rest = 6 (2 c^2) / 6 = 2 c^2.
    """
    a, b, c = np.sqrt([seed / 4, problem / 4, rest / 2])
    seeds, problems = a * np.array([-1, 0, 1]), b * np.array([1, 1, -1, -1])
    return 0.5 + seeds[:, None] + problems + c * np.outer([1, -2, 1], [1, -1, 0, 0])


@pytest.mark.parametrize(
    ("squares", "total", "df", "share", "rest_df"),
    [
        # both components: less MS_rest; df = 18^2 / (16^2 / 2 + 4^2 / 3 + 2^2 / 6) = 324 / 134
        ((0.16, 0.04, 0.02), 0.18, 324 / 134, 16 / 18, 3),
        # MS_problem below MS_rest: seeds alone; then problems alone; then rest alone, with (3 - 1) (4 - 1) df
        ((0.16, 0.01, 0.02), 0.16, 2, 1, 3),
        ((0.01, 0.16, 0.02), 0.16, 3, 0, 3),
        ((0.01, 0.01, 0.02), 0.02, 6, 0, 6),
        # half as much again as MS_rest shows: 0.16 + 0.03 - 0.02; a mean square that equals it does not
        ((0.03, 0.16, 0.02), 0.17, 17**2 / (3**2 / 2 + 16**2 / 3 + 2**2 / 6), 3 / 17, 3),
        ((0.04, 0.36, 0.04), 0.36, 3, 0, 3),
        # 4^2 / (3^2 / 2 + 3^2 / 3 + 2^2 / 6) = 1.96 would be fewer than either part has
        ((0.03, 0.03, 0.02), 0.04, 2, 3 / 4, 3),
        # nothing varies: the degrees of freedom of the problems
        ((0.0, 0.0, 0.0), 0.0, 3, 0, 3),
    ],
)
def test_components_and_law_by_hand(squares, total: float, df: float, share: float, rest_df: float) -> None:
    found = compute_mean_variance(crossed(*squares))
    assert float(found.mean) == pytest.approx(0.5)
    assert float(found.variance) == pytest.approx(total / 12, rel=1e-9, abs=1e-30)
    assert (float(found.df), float(found.seed_share), float(found.rest_df)) == pytest.approx((df, share, rest_df))


def test_fewest_degrees_of_freedom_where_the_problems_are_fewer_than_the_seeds() -> None:
    """The same matrix on its side, 4 seeds x 3 problems: still 2, now of the problems."""
    found = compute_mean_variance(crossed(0.03, 0.03, 0.02).T)
    assert (float(found.df), float(found.rest_df)) == pytest.approx((2, 2))


def test_one_problem_has_no_variance_and_one_degree_of_freedom() -> None:
    found = compute_mean_variance(np.array([[0.2], [0.6]]))
    values = (found.mean, found.variance, found.df, found.seed_share, found.rest_df)
    assert [float(value) for value in values] == pytest.approx([0.4, 0, 1, 0, 1])
    assert found.seeds == 2


def test_two_unequal_tasks_on_one_seed_by_hand() -> None:
    """Variances of the means 1/4 / 4 = 1/16 with 3 df, and 1/2 / 2 = 1/4 with 1.

    Their sum 5/16 over 2^2; df = 5^2 / (1^2 / 3 + 4^2 / 1) = 75/49.
    """
    found = compute_mean_variance(np.array([[1.0, 0, 1, 1]]), np.array([[1.0, 0]]))
    assert (float(found.mean), float(found.variance), float(found.df)) == pytest.approx((5 / 8, 5 / 64, 75 / 49))
    assert (float(found.seed_share), float(found.rest_df), found.seeds) == pytest.approx((0, 75 / 49, 1))


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_stack_of_matrices_is_each_of_them(seeds: int) -> None:
    rng = np.random.default_rng(2)
    stack = rng.random((6, seeds, 20)) + 0.3 * rng.random((6, seeds, 1))
    whole = compute_mean_variance(stack)
    for index, y in enumerate(stack):
        alone = compute_mean_variance(y)
        assert (whole.mean[index], whole.variance[index], whole.df[index]) == (alone.mean, alone.variance, alone.df)
        assert whole.quantile(0.05)[index] == pytest.approx(float(alone.quantile(0.05)), rel=1e-9)
