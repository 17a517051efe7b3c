"""Hand-worked values, degenerate input, and the coverage of the intervals where the truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.results.statistics import (
    CHECKPOINT_ONLY,
    SEEDS_AND_PROBLEMS,
    Array,
    accuracy_bounds,
    compute_mean_variance,
    difference_halfwidths,
    holm,
    mean_interval,
    paired_difference,
)

T_975_DF_3 = 3.182446305  # any table of Student's t


def test_variance_components_of_a_2_by_3_matrix() -> None:
    """Mean 3.5/6 = 7/12; seed means 5/6, 1/3; problem means 1/2, 1/4, 1.

    MS_seed    = 3 (2 (1/4)^2) / 1                         = 3/8
    MS_problem = 2 ((1/12)^2 + (1/3)^2 + (5/12)^2) / 2     = 42/144 = 7/24
    residuals of seed 0: 1/4, 0, -1/4, of seed 1 the same with the other sign; MS_rest = (4/16) / 2 = 1/8
    Var        = (9 + 7 - 3) / 24 / 6                      = 13/144
    df         = 13^2 / (9^2 / 1 + 7^2 / 2 + 3^2 / 2)      = 169/110
    """
    y = np.array([[1, 0.5, 1], [0, 0, 1]])
    estimate = compute_mean_variance(y)
    assert estimate.mean == pytest.approx(7 / 12)
    assert estimate.variance == pytest.approx(13 / 144)
    assert estimate.df == pytest.approx(169 / 110)
    interval = mean_interval(y)
    assert (interval.seeds, interval.problems, interval.estimand) == (2, 3, SEEDS_AND_PROBLEMS)
    assert interval.standard_error == pytest.approx(math.sqrt(13) / 12)


def test_negative_seed_component_is_zero() -> None:
    """Equal seed means, so MS_seed = 0; problem means 3/4, 1/2, 1/4: MS_problem = 2 (1/16 + 0 + 1/16) / 2 = 1/8.

    Residuals of seed 0: 0, 1/8, -1/8, of seed 1 the same with the other sign: MS_rest = (4/64) / 2 = 1/32.
    The seed component (0 - 1/32) / 3 counts as 0: Var = (1/8) / 6 = 1/48, with 3 - 1 degrees of freedom.
    """
    estimate = compute_mean_variance(np.array([[0.75, 0.625, 0.125], [0.75, 0.375, 0.375]]))
    assert (float(estimate.variance), float(estimate.df)) == pytest.approx((1 / 48, 2))


def test_only_rest_is_left() -> None:
    """A checkerboard has no seed and no problem effect: MS_rest = 4 (1/4) / 1 = 1, Var = 1/4, one degree of freedom."""
    estimate = compute_mean_variance(np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert (float(estimate.variance), float(estimate.df)) == pytest.approx((1 / 4, 1))


def test_one_seed_is_clustered_by_problem_and_says_so() -> None:
    """Mean 3/4; variance of 1, 0, 1, 1 is 1/4; Var = 1/16. n = (3/16) / (1/16) = 3 problems, times (z / t_3)^2."""
    interval = mean_interval([[1, 0, 1, 1]])
    n = 3 * (1.959963985 / T_975_DF_3) ** 2
    assert interval.estimand == CHECKPOINT_ONLY
    assert (interval.standard_error, interval.df) == pytest.approx((1 / 4, 3))
    assert interval.low == pytest.approx(stats.beta.ppf(0.025, 0.75 * n, 0.25 * n + 1))
    assert interval.high == pytest.approx(stats.beta.ppf(0.975, 0.75 * n + 1, 0.25 * n))


@pytest.mark.parametrize(("value", "low", "high"), [(0, 0, 0.1157033), (1, 0.8842967, 1), (0.5, 0.3129703, 0.6870297)])
@pytest.mark.parametrize("S", [1, 3])
def test_equal_scores_have_the_width_of_thirty_problems(S: int, value: float, low: float, high: float) -> None:
    """Clopper and Pearson at 0, 15 and 30 of 30: the upper end at 0 is 1 - 0.025^(1/30)."""
    interval = mean_interval(np.full((S, 30), value))
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((value, low, high), abs=1e-6)


@pytest.mark.parametrize("y", [[[0.5]], [[0.0], [1.0]], [[0.0]], [[1.0], [1.0], [1.0]]])
def test_one_problem_says_next_to_nothing(y: list[list[float]]) -> None:
    interval = mean_interval(y)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1
    assert interval.high - interval.low > 0.95


@pytest.mark.parametrize("y", [[], [0.5], [[]], [[1.5]], [[-0.1]], [[math.nan, 0.0]]])
def test_input_that_is_not_a_matrix_of_scores_is_refused(y: object) -> None:
    with pytest.raises(ValueError, match="scores must be"):
        mean_interval(y)  # type: ignore[arg-type]


def test_paired_difference_by_hand() -> None:
    """d = 1, 0, 0, 1 on one seed: mean 1/2, variance 1/3, standard error sqrt(1/12), t = sqrt(3), 3 df."""
    difference = paired_difference([[1, 0, 1, 1]], [[0, 0, 1, 0]])
    half = T_975_DF_3 / math.sqrt(12)
    assert difference.statistic == pytest.approx(math.sqrt(3))
    assert (difference.low, difference.high) == pytest.approx((0.5 - half, 1.0))  # clipped to 1
    # two-sided tail of t = sqrt(3) with 3 df, in closed form: 1 - 2/pi (atan(1) + 1/2)
    assert difference.p_value == pytest.approx(1 - 2 / math.pi * (math.pi / 4 + 0.5))
    assert difference.estimand == CHECKPOINT_ONLY


def test_paired_difference_is_narrower_than_two_intervals_and_antisymmetric() -> None:
    rng = np.random.default_rng(0)
    hard = rng.uniform(0, 1, (1, 60))
    a, b = (np.clip(hard + rng.normal(shift, 0.02, (3, 60)), 0, 1) for shift in (0.05, 0))
    forth, back = paired_difference(a, b), paired_difference(b, a)
    assert (forth.estimate, forth.low, forth.high) == pytest.approx((-back.estimate, -back.high, -back.low))
    assert forth.p_value == pytest.approx(back.p_value)
    assert forth.p_value < 1e-3
    single = mean_interval(a)
    assert forth.high - forth.low < (single.high - single.low) / 3


def test_methods_that_agree_everywhere_still_have_width() -> None:
    same = paired_difference(np.ones((3, 30)), np.ones((3, 30)))
    assert (same.estimate, same.statistic, same.p_value) == (0, 0, 1)
    assert (same.low, same.high) == pytest.approx((-0.1157033, 0.1157033), abs=1e-6)
    opposite = paired_difference(np.ones((3, 30)), np.zeros((3, 30)))
    assert (opposite.low, opposite.high) == pytest.approx((1 - 0.1157033, 1), abs=1e-6)
    assert opposite.p_value < 1e-6


def test_paired_difference_needs_equal_shapes() -> None:
    with pytest.raises(ValueError, match="same seeds and problems"):
        paired_difference(np.ones((2, 3)), np.ones((3, 3)))


def test_holm_by_hand() -> None:
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04; the last is raised to 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


SIMULATIONS = 2000
# S seeds, I problems, true accuracy; standard deviations of seeds, problems and seed x problem (logits); samples
CELLS = [
    (3, 30, 0.1, 0.0, 1.5, 0.5, 4),
    (3, 30, 0.5, 0.0, 0.5, 0.0, 1),
    (3, 30, 0.5, 0.2, 1.5, 0.5, 4),
    (3, 30, 0.9, 0.2, 1.5, 0.5, 4),
    (3, 200, 0.3, 0.1, 1.5, 0.5, 4),
    (3, 200, 0.7, 0.2, 3.0, 1.0, 1),
    (5, 100, 0.1, 0.1, 1.5, 1.0, 1),
    (5, 100, 0.5, 0.5, 1.5, 0.0, 4),
    (8, 30, 0.3, 0.2, 1.5, 0.5, 4),
]
HARD_CELLS = [  # the estimator is known to fall short here; printed, and bounded from below only
    (3, 30, 0.9, 0.8, 0.5, 0.0, 4),  # seeds differ more than problems do
    (3, 200, 0.5, 0.2, 0.5, 0.0, 4),  # the same, and the seed component is often estimated as 0
    (8, 30, 0.1, 0.0, 3.0, 0.0, 4),  # few problems, nearly all of them always failed
]


def draw_logits(rng: np.random.Generator, cell: tuple[float, ...], simulations: int) -> Array:
    seed_sd, problem_sd, rest_sd = cell[3:6]
    shape = (simulations, int(cell[0]), int(cell[1]))  # [N, S, I]
    seeds, problems = rng.normal(size=(*shape[:2], 1)), rng.normal(size=(shape[0], 1, shape[2]))
    return seed_sd * seeds + problem_sd * problems + rest_sd * rng.normal(size=shape)


def intercept_for(accuracy: float, sd: float) -> float:
    """b with E[sigmoid(b + N(0, sd^2))] = accuracy, by Gauss-Hermite quadrature and bisection."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        below = weights @ (1 / (1 + np.exp(-middle - sd * nodes))) / weights.sum() < accuracy
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2


def draw_scores(rng: np.random.Generator, cell: tuple[float, ...], logits: Array) -> Array:
    accuracy, *sds, samples = cell[2:]
    intercept = intercept_for(accuracy, float(np.linalg.norm(sds)))
    return rng.binomial(int(samples), 1 / (1 + np.exp(-intercept - logits))) / samples


def measure_coverage(cell: tuple[float, ...]) -> tuple[float, float]:
    """The share of intervals that hold the truth, and its Monte-Carlo standard error; printed."""
    rng = np.random.default_rng(20260101)
    y = draw_scores(rng, cell, draw_logits(rng, cell, SIMULATIONS))
    low, high = accuracy_bounds(compute_mean_variance(y), y.shape[-1])
    coverage = float(((low <= cell[2]) & (cell[2] <= high)).mean())
    error = math.sqrt(coverage * (1 - coverage) / SIMULATIONS)
    print(f"\ncoverage {100 * coverage:.1f} ± {100 * error:.1f} % at S, I, accuracy, sds, samples = {cell}", end="")
    return coverage, error


@pytest.mark.parametrize("cell", CELLS)
def test_coverage(cell: tuple[float, ...]) -> None:
    coverage, _ = measure_coverage(cell)
    assert 0.93 <= coverage <= 0.985


@pytest.mark.parametrize("cell", HARD_CELLS)
def test_coverage_of_hard_cells_is_bounded(cell: tuple[float, ...]) -> None:
    coverage, _ = measure_coverage(cell)
    assert coverage >= 0.90


@pytest.mark.parametrize(
    "cell", [(3, 30, 0.5, 0.2, 1.5, 0.5, 4), (3, 200, 0.3, 0.1, 1.5, 0.5, 1), (1, 60, 0.5, 0, 1.5, 0, 4)]
)
def test_paired_test_has_its_size_where_two_methods_are_equal(cell: tuple[float, ...]) -> None:
    """Two methods with the same problems, and their own seed and seed x problem effects, of the same law."""
    rng = np.random.default_rng(7)
    problem_sd, own = cell[4], (*cell[:4], 0.0, *cell[5:])
    problems = problem_sd * rng.normal(size=(SIMULATIONS, 1, int(cell[1])))
    a, b = (draw_scores(rng, cell, problems + draw_logits(rng, own, SIMULATIONS)) for _ in range(2))
    estimate = compute_mean_variance(a - b)
    rejected = float((np.abs(estimate.mean) > difference_halfwidths(estimate, int(cell[1]))).mean())
    error = math.sqrt(rejected * (1 - rejected) / SIMULATIONS)
    print(f"\nsize {100 * rejected:.1f} ± {100 * error:.1f} % at {cell}", end="")
    assert 0.015 <= rejected <= 0.07
