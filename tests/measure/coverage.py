"""`python tests/measure/coverage.py [--simulations 4000]`: measures coverage and size of harness.results.statistics.

Truth is known because scores are drawn: the logit of an accuracy is a constant + seed + problem + rest, all normal, and
a problem's score is the share of successes of its samples. The constant makes the mean accuracy what the cell says.

It writes results/statistics/coverage.md, which docs/statistics.md embeds (`python -m harness.results.embed
docs/statistics.md`). Exit code 1 if a cell covers less than LEAST.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.files import ROOT, write_text
from harness.results.statistics import accuracy_bounds, difference_halfwidths
from harness.results.variance import Array, compute_mean_variance

TARGET = (0.935, 0.98)
LEAST = 0.92
OUTPUT = ROOT / "results" / "statistics" / "coverage.md"
SEEDS = (3, 5, 8)
DESIGNS = (
    (30, 32),
    (100, 4),
    (300, 1),
)  # problems, samples: AIME avg@32, a few hundred answers, LiveCodeBench or IFBench once
ACCURACIES = (0.1, 0.5, 0.9)
EFFECTS = {  # standard deviations of the seeds', problems' and seed x problem effects, in logits
    "no seed effect": (0.0, 1.5, 0.5),
    "typical": (0.2, 1.5, 0.5),
    "problems alike": (0.2, 0.5, 0.0),
    "problems solved or not": (0.2, 3.0, 0.0),
    "seeds dominate": (0.8, 0.5, 0.0),
}


@dataclass(frozen=True)
class Cell:
    """A design and the truth behind it."""

    seeds: int
    problems: int
    samples: int
    accuracy: float  # mean over the populations of problems and seeds
    effects: str  # key of EFFECTS

    def generator(self, purpose: int) -> np.random.Generator:
        """Random numbers that depend on the cell alone, so that adding a cell changes no other."""
        effects = list(EFFECTS).index(self.effects)
        return np.random.default_rng(
            [purpose, self.seeds, self.problems, self.samples, round(100 * self.accuracy), effects]
        )


CELLS = [
    Cell(seeds, problems, samples, accuracy, effects)
    for seeds, (problems, samples), accuracy, effects in itertools.product(SEEDS, DESIGNS, ACCURACIES, EFFECTS)
]


def intercept_for(accuracy: float, sd: float) -> float:
    """b with E[sigmoid(b + N(0, sd^2))] = accuracy, by Gauss-Hermite quadrature and bisection."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        below = weights @ (1 / (1 + np.exp(-middle - sd * nodes))) / weights.sum() < accuracy
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2


def draw_scores(rng: np.random.Generator, cell: Cell, simulations: int, methods: int = 1) -> list[Array]:
    """Scores [N, S, I] of `methods` equal methods: the same problems, seeds and rest of their own."""
    seed_sd, problem_sd, rest_sd = EFFECTS[cell.effects]
    intercept = intercept_for(cell.accuracy, float(np.linalg.norm((seed_sd, problem_sd, rest_sd))))
    shape = (simulations, cell.seeds, cell.problems)
    problems = problem_sd * rng.standard_normal((simulations, 1, cell.problems))
    scores = []
    for _ in range(methods):
        logits = intercept + problems + seed_sd * rng.standard_normal((*shape[:2], 1))
        if rest_sd:
            logits = logits + rest_sd * rng.standard_normal(shape)
        scores.append(rng.binomial(cell.samples, 1 / (1 + np.exp(-logits))) / cell.samples)
    return scores


def measure_coverage(cell: Cell, simulations: int) -> float:
    """The share of intervals that hold the true accuracy."""
    (y,) = draw_scores(cell.generator(0), cell, simulations)
    low, high = accuracy_bounds(compute_mean_variance(y), cell.problems)
    return float(((low <= cell.accuracy) & (cell.accuracy <= high)).mean())


def measure_size(cell: Cell, simulations: int) -> float:
    """The share of paired tests at 5 % that tell two equal methods apart."""
    a, b = draw_scores(cell.generator(1), cell, simulations, methods=2)
    estimate = compute_mean_variance(a - b)
    return float((np.abs(estimate.mean) > difference_halfwidths(estimate, cell.problems)).mean())


def monte_carlo_error(share: float, simulations: int) -> float:
    """One standard error of a share that was counted in simulations."""
    return math.sqrt(share * (1 - share) / simulations)


def _table(title: str, cells: Iterable[Cell], shares: dict[Cell, float], simulations: int) -> list[str]:
    """A row per design and accuracy, a column per kind of effects."""
    header = ["seeds", "problems × samples", "accuracy", *EFFECTS]
    lines = [f"**{title}**", "", _row(header), _row(["---:"] * len(header))]
    rows: dict[tuple[int, int, int, float], dict[str, str]] = {}
    for cell in cells:
        key = (cell.seeds, cell.problems, cell.samples, cell.accuracy)
        share = shares[cell]
        text = f"{100 * share:.1f} ± {100 * monte_carlo_error(share, simulations):.1f}"
        rows.setdefault(key, {})[cell.effects] = text
    for (seeds, problems, samples, accuracy), texts in rows.items():
        lines.append(_row([str(seeds), f"{problems} × {samples}", f"{accuracy:g}", *(texts[key] for key in EFFECTS)]))
    return [*lines, ""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def render(coverage: dict[Cell, float], size: dict[Cell, float], simulations: int) -> str:
    """The text of results/statistics/coverage.md."""
    low, high = TARGET
    outside = {cell: share for cell, share in coverage.items() if not low <= share <= high}
    lines = [
        f"{simulations:,} simulations a cell, in %, ± one Monte-Carlo standard error. Made by "
        f"`python tests/measure/coverage.py --simulations {simulations}`. Effects are standard deviations in logits "
        "(seeds, "
        f"problems, seed × problem): {'; '.join(f'{name} {sds}' for name, sds in EFFECTS.items())}.",
        "",
        *_table("Coverage of the 95 % interval of an accuracy", coverage, coverage, simulations),
        f"{len(coverage) - len(outside)} of {len(coverage)} cells lie in [{100 * low:g}, {100 * high:g}] %; "
        f"the lowest is {100 * min(coverage.values()):.1f}, the highest {100 * max(coverage.values()):.1f}. Outside:",
        "",
    ]
    for cell, share in sorted(outside.items(), key=lambda entry: entry[1]):
        lines.append(
            f"- {100 * share:.1f} ± {100 * monte_carlo_error(share, simulations):.1f}: {cell.seeds} seeds, "
            f"{cell.problems} problems × "
            f"{cell.samples}, accuracy {cell.accuracy:g}, {cell.effects}"
        )
    lines += ["", *_table("Size of the paired test at 5 %, two equal methods", size, size, simulations)]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Measures the coverage of the intervals and the size of the test.")
    parser.add_argument("--simulations", type=int, default=4000, help="a cell")
    simulations = parser.parse_args(arguments).simulations
    coverage, size = {}, {}
    for cell in CELLS:
        coverage[cell] = measure_coverage(cell, simulations)
        print(
            f"{100 * coverage[cell]:.1f} ± {100 * monte_carlo_error(coverage[cell], simulations):.1f}  {cell}",
            flush=True,
        )
    for cell in (cell for cell in CELLS if cell.accuracy != ACCURACIES[-1]):
        size[cell] = measure_size(cell, simulations)
        print(
            f"size {100 * size[cell]:.1f} ± {100 * monte_carlo_error(size[cell], simulations):.1f}  {cell}", flush=True
        )
    write_text(OUTPUT, render(coverage, size, simulations))
    return 1 if min(coverage.values()) < LEAST else 0


if __name__ == "__main__":
    sys.exit(main())
