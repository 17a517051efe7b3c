"""Hand-worked values, degenerate input, and the coverage of the intervals where the truth is known."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from scipy import stats

from harness.results.statistics import (
    CHECKPOINT_ONLY,
    SEEDS_AND_PROBLEMS,
    binomial_standard_error,
    detectable_ratio,
    difference_halfwidths,
    holm,
    mean_interval,
    paired_difference,
    pass_at_k,
    problems_rested_on,
)
from harness.results.variance import compute_mean_variance
from tests.measure.coverage import (
    CELLS,
    LEAST,
    OUTPUT,
    TARGET,
    Cell,
    measure_interval,
    measure_size,
    monte_carlo_error,
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


def test_the_problems_that_a_mean_rests_on_by_hand() -> None:
    """Seeds' averages 1, 1/2, 0, 0: (3/2)^2 / (5/4) = 9/5 solved; failed, 0, 1/2, 1, 1: (5/2)^2 / (9/4) = 25/9.

    Two tasks: 1, 0 and 1, 1, 0, 0 weigh 1/2 and 1/4 each: solved (1/2 + 2/4)^2 / (1/4 + 2/16) = 8/3, failed the same.
    """
    y = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert float(problems_rested_on([y])) == pytest.approx(9 / 5)
    assert float(problems_rested_on([1 - y])) == pytest.approx(9 / 5)
    assert float(problems_rested_on([np.array([[1.0, 0]]), np.array([[1.0, 1, 0, 0]])])) == pytest.approx(8 / 3)
    assert problems_rested_on([np.zeros((2, 3, 5))]).tolist() == [0, 0]


def test_one_problem_solved_now_and_then_does_not_make_hundreds_of_problems() -> None:
    """One of 30 problems at 1/10: mean m = 1/300 and standard error 1/300, from which n = m (1 - m) / m^2 = 299.

    The mean rests on one problem, so n = 30, for the upper end at 0.1 + 1 of 30 + 1.
    """
    interval = mean_interval([[0.1] + [0.0] * 29])
    assert interval.standard_error == pytest.approx(1 / 300)
    assert interval.low == pytest.approx(stats.beta.ppf(0.025, 0.1, 30.9))
    assert interval.high == pytest.approx(stats.beta.ppf(0.975, 1.1, 29.9))
    assert interval.high > mean_interval([[0.0] * 30]).high  # more than where nothing was solved
    failed = mean_interval([[0.9] + [1.0] * 29])
    assert (failed.low, failed.high) == pytest.approx((1 - interval.high, 1 - interval.low))


def test_a_mean_that_rests_on_seven_problems_keeps_its_own_width() -> None:
    """Scores of 1/2 on 7 of 30 problems and on 6: (7/2)^2 / (7/4) = 7 problems, and 6.

    On 7: m = 7/60, variance of scores (7/4 - 30 m^2) / 29, n = m (1 - m) 30 / that, above 30; on 6, n is 30 at most.
    """
    for solved in (7, 6):
        y = np.array([[0.5] * solved + [0.0] * (30 - solved)])
        m = solved / 60
        n = m * (1 - m) * 30 / ((solved / 4 - 30 * m**2) / 29) * (1.959963985 / stats.t.isf(0.025, 29)) ** 2
        assert n > 50
        used = n if solved == 7 else 30
        assert mean_interval(y).high == pytest.approx(stats.beta.ppf(0.975, used * m + 1, used * (1 - m)))


def test_a_quarter_of_few_problems_is_not_few() -> None:
    """Scores of 1/2 on 2 of 8 problems: the mean rests on 2, fewer than seven, but they are a quarter.

    m = 1/8, variance of scores (2/4 - 8/64) / 7 = 3/56, n = 7/64 · 8 · 56/3 = 49/3, above 8; on 1 of 8, n is 8.
    """
    y = np.array([[0.5, 0.5] + [0.0] * 6])
    n = 49 / 3 * (1.959963985 / stats.t.isf(0.025, 7)) ** 2
    assert mean_interval(y).high == pytest.approx(stats.beta.ppf(0.975, n / 8 + 1, n * 7 / 8))
    assert mean_interval([[0.5] + [0.0] * 7]).high == pytest.approx(stats.beta.ppf(0.975, 1.5, 7.5))


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
    assert (difference.standard_error, difference.df) == pytest.approx((1 / math.sqrt(12), 3))
    assert (difference.seeds, difference.problems) == (1, 4)
    assert paired_difference([[0, 0, 1, 0]], [[1, 0, 1, 1]]).low == -1.0
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
    with pytest.raises(ValueError, match=r"same seeds and problems, got \(2, 3\) and \(3, 3\)$"):
        paired_difference(np.ones((2, 3)), np.ones((3, 3)))


def test_holm_by_hand() -> None:
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04; the last is raised to 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


SIMULATIONS = 2000
COVERAGE = [
    Cell(3, 30, 32, 0.5, "typical"),
    Cell(3, 100, 4, 0.1, "typical"),
    Cell(3, 100, 4, 0.9, "seeds dominate"),
    Cell(5, 300, 1, 0.1, "no seed effect"),
]
EDGES = [
    Cell(1, 30, 32, 0.02, "problems solved or never"),
    Cell(3, 30, 32, 0.99, "problems solved or not"),
    Cell(5, 30, 32, 0.01, "problems solved or never"),
    Cell(5, 100, 4, 0.01, "problems solved or never"),
    Cell(3, 300, 1, 0.01, "seeds dominate"),
]
SHORT = Cell(3, 300, 1, 0.5, "problems alike")  # a small seed effect that three seeds often do not show


@pytest.mark.parametrize("cell", COVERAGE, ids=str)
def test_coverage(cell: Cell) -> None:
    coverage, _ = measure_interval(cell, SIMULATIONS)
    error = monte_carlo_error(coverage, SIMULATIONS)
    print(f"\ncoverage {100 * coverage:.1f} ± {100 * error:.1f} % at {cell}", end="")
    assert TARGET[0] <= coverage <= TARGET[1]


@pytest.mark.parametrize("cell", EDGES, ids=str)
def test_coverage_where_few_problems_are_solved_or_failed(cell: Cell) -> None:
    """Without a bound on the effective number of problems these cover 69 to 91 %."""
    coverage, _ = measure_interval(cell, SIMULATIONS)
    print(f"\ncoverage {100 * coverage:.1f} % at {cell}", end="")
    assert coverage >= LEAST


def test_coverage_where_it_is_known_to_fall_short_is_bounded() -> None:
    coverage, _ = measure_interval(SHORT, SIMULATIONS)
    print(
        f"\ncoverage {100 * coverage:.1f} ± {100 * monte_carlo_error(coverage, SIMULATIONS):.1f} % at {SHORT}", end=""
    )
    assert coverage >= LEAST


@pytest.mark.parametrize("cell", [Cell(3, 30, 32, 0.5, "typical"), Cell(3, 300, 1, 0.5, "seeds dominate")], ids=str)
def test_paired_test_has_its_size_where_two_methods_are_equal(cell: Cell) -> None:
    rejected = measure_size(cell, SIMULATIONS)
    error = monte_carlo_error(rejected, SIMULATIONS)
    print(f"\nsize {100 * rejected:.1f} ± {100 * error:.1f} % at {cell}", end="")
    assert 0.015 <= rejected <= 0.065


def published(title: str) -> dict[Cell, float]:
    """A table of results/statistics/coverage.md, as shares."""
    table = OUTPUT.read_text(encoding="utf-8").partition(f"**{title}")[2].partition("**")[2].partition("\n**")[0]
    numbers = [float(text) / 100 for text in re.findall(r"(?<=\| )(\d+\.\d)(?= \|)", table)]
    return dict(zip(CELLS, numbers, strict=True))


def test_the_page_says_of_the_edges_what_the_table_says() -> None:
    coverage, size = published("Coverage of the 95 % interval"), published("Size of the paired test")
    short = [cell for cell, share in coverage.items() if share < LEAST]
    assert {(cell.seeds, cell.problems, cell.accuracy) for cell in short} == {(3, 300, 0.05), (3, 300, 0.95)}
    assert {cell.effects for cell in short} == {"seeds dominate"}
    assert max(share for cell, share in size.items() if not 0.05 < cell.accuracy < 0.95) <= 0.06
    assert max(size.values()) <= 0.08


@pytest.mark.slow
def test_published_coverage_is_measured_again() -> None:
    """The committed table holds, cell by cell, within four standard errors of the difference of the
    two measurements.
    """
    simulations = int(OUTPUT.read_text(encoding="utf-8").partition(" simulations")[0].replace(",", ""))
    for cell, share in published("Coverage of the 95 % interval").items():
        again, _ = measure_interval(cell, SIMULATIONS)
        spread = math.hypot(monte_carlo_error(share, simulations), monte_carlo_error(share, SIMULATIONS))
        assert abs(again - share) <= 4 * spread + 0.0005, cell


def test_seeds_that_differ_widen_the_interval_of_equal_means() -> None:
    """Equal scores on 10 and on 1,000 problems: the standard error is that of three seeds, and more problems do not
    help.
    """
    seeds = np.array([[0.2], [0.5], [0.8]])
    few, many = (mean_interval(np.repeat(seeds, problems, axis=1)) for problems in (10, 1000))
    # MS_seed / (S I) = var(0.2, 0.5, 0.8) / 3 = 0.09 / 3, for any number of problems
    assert (few.standard_error, many.standard_error) == pytest.approx((math.sqrt(0.03), math.sqrt(0.03)))


def test_average_of_two_tasks_by_hand() -> None:
    """Seeds' averages over both tasks: (3/4 + 1/4) / 2 = 1/2 and (1/4 + 3/4) / 2 = 1/2, so the seeds' term is 0.

    Task 0, [[1, 1/2], [1/2, 0]]: MS_problem = 2 (1/16 + 1/16) / 1 = 1/4, MS_rest = 0, over S I = 4: 1/16 and 0.
    Task 1, the rows exchanged: the same. Over the square of two tasks: MS_problem's term 2/16/4 = 1/32, with 2 df.
    """
    first = [[1, 0.5], [0.5, 0]]
    interval = mean_interval([first, first[::-1]])
    assert interval.estimate == 0.5
    assert (interval.standard_error, interval.df) == pytest.approx((math.sqrt(1 / 32), 2))
    assert (interval.seeds, interval.problems) == (2, 4)


def test_two_tasks_without_variance_are_as_certain_as_their_problems_make_them() -> None:
    """30 and 60 problems, nothing solved: the mean of two means is as certain as one of 2^2 / (1/30 + 1/60) = 80
    problems.
    """
    both = [np.zeros((2, 30)), np.zeros((2, 60))]
    assert mean_interval(both).high == pytest.approx(1 - 0.025 ** (1 / 80))
    same = paired_difference(both, both)
    assert (same.low, same.high) == pytest.approx((-(1 - 0.025 ** (1 / 80)), 1 - 0.025 ** (1 / 80)))
    assert (same.seeds, same.problems) == (2, 90)


def test_half_the_width_of_a_difference() -> None:
    """d = 1, 0, 0, 1 as above: t_3 sqrt(1/12), not clipped; the same difference everywhere: 1 - 0.025^(1/4)."""
    halves = difference_halfwidths(compute_mean_variance(np.array([[[1.0, 0, 0, 1]], [[0.5] * 4]])), 4)
    assert halves == pytest.approx([T_975_DF_3 / math.sqrt(12), 1 - 0.025**0.25])


def test_what_an_interval_says_of_itself() -> None:
    assert (SEEDS_AND_PROBLEMS, CHECKPOINT_ONLY) == ("problems and training seeds", "this checkpoint only")


def test_no_difference_beyond_one_can_be_missed() -> None:
    """d = 1, -1: one degree of freedom, a standard error of 1: what would have to be true to be
    found is not possible.
    """
    assert paired_difference([[1, 0]], [[0, 1]]).detectable == 1.0


def test_binomial_standard_error_by_hand() -> None:
    """sqrt(0.2 · 0.8 / 100) = 0.04."""
    assert binomial_standard_error(0.2, 100) == pytest.approx(0.04)


def test_one_task_in_a_list_is_that_task() -> None:
    y = np.random.default_rng(0).random((3, 20))
    assert mean_interval([y]) == mean_interval(y)
    assert paired_difference([y], [1 - y]) == paired_difference(y, 1 - y)
    with pytest.raises(ValueError, match=r"the same seeds in every task, got \(3, 20\) and \(2, 20\)$"):
        mean_interval([y, y[:2]])


def test_probability_of_improvement_by_hand() -> None:
    """a above b on problems 0 and 3, equal on 2, below on 1: (1 + 0 + 1/2 + 1) / 4 = 5/8, however large the
    differences.
    """
    improvement = paired_difference([[0.9, 0.1, 0.5, 0.6]], [[0.1, 0.2, 0.5, 0.5]]).improvement
    wins = mean_interval([[1, 0, 0.5, 1]])
    assert improvement == wins and improvement.estimate == 5 / 8


def test_a_difference_of_the_detectable_size_is_found_in_four_of_five() -> None:
    """30 differences drawn around the detectable difference of their design (standard deviation 0.2, one seed).

    The noncentral t by table: df 29, two-sided 5 %, power 80 %: shift 2.9 standard errors.
    """
    rng = np.random.default_rng(0)
    ratio = detectable_ratio(float(stats.t.isf(0.025, 29)), 29)
    assert ratio == pytest.approx(2.9, abs=0.02)
    draws = rng.normal(ratio * 0.2 / math.sqrt(30), 0.2, (20_000, 1, 30))
    estimate = compute_mean_variance(draws)
    found = float((estimate.mean > difference_halfwidths(estimate, 30)).mean())
    assert found == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 20_000))
    difference = paired_difference([[0.4, 0.6, 0.8, 0.3]], [[0.3, 0.6, 0.5, 0.3]])
    expected = difference.standard_error * detectable_ratio(T_975_DF_3, 3)
    assert difference.detectable == pytest.approx(expected)


def test_pass_at_k_by_hand() -> None:
    """4 samples: of 1 right, 2 drawn: 1 - C(3, 2) / C(4, 2) = 1/2; of 3 right always; k = 1 is the accuracy."""
    assert pass_at_k([[0, 1, 3, 4]], 4, 2) == pytest.approx(np.array([[0, 0.5, 1, 1]]))
    assert pass_at_k([[0, 1, 3, 4]], 4, 1) == pytest.approx(np.array([[0, 0.25, 0.75, 1]]))
    assert pass_at_k([[0, 1, 3, 4]], 4, 4).tolist() == [[0, 1, 1, 1]]
    for k in (0, 5):
        with pytest.raises(ValueError, match="1 <= k <= samples"):
            pass_at_k([[1]], 4, k)


def test_equal_scores_give_equal_bits() -> None:
    y = np.random.default_rng(5).random((3, 40))
    assert mean_interval(y) == mean_interval(y.copy())
    assert paired_difference(y, y[::-1]) == paired_difference(y.copy(), y[::-1].copy())
