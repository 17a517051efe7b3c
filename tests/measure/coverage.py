"""`python tests/measure/coverage.py [--simulations 10000]`: measures coverage and size of harness.results.statistics.

Truth is known because scores are drawn: the logit of an accuracy is a constant + seed + problem + rest, all normal, and
a problem's score is the share of successes of its samples. The constant makes the mean accuracy what the cell says.
With one seed the truth is that of the checkpoint: the mean over problems, its seed's effect given, and two methods are
equal if that effect is the same.

It writes results/statistics/coverage.md, which docs/statistics.md embeds (`python -m harness.results.embed
docs/statistics.md`); 10,000 simulations a cell take ten minutes of one core. Exit code 1 if a cell covers less than
LEAST by more than two Monte-Carlo standard errors.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.files import ROOT, write_text
from harness.results.statistics import accuracy_bounds, difference_halfwidths
from harness.results.variance import Array, compute_mean_variance

TARGET = (0.935, 0.98)
LEAST = 0.92
BATCH = 2000  # simulations at once: 300 problems under five seeds are 24 MB
OUTPUT = ROOT / "results" / "statistics" / "coverage.md"
SEEDS = (1, 3, 5)
DESIGNS = (
    (30, 32),
    (100, 4),
    (300, 1),
)  # problems, samples: AIME avg@32, a few hundred answers, LiveCodeBench or IFBench once
ACCURACIES = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99)
EFFECTS = {  # standard deviations of the seeds', problems' and seed x problem effects, in logits
    "no seed effect": (0.0, 1.5, 0.5),
    "typical": (0.2, 1.5, 0.5),
    "problems alike": (0.2, 0.5, 0.0),
    "problems solved or not": (0.2, 3.0, 0.0),
    "problems solved or never": (0.15, 4.0, 0.5),
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
    for seeds, (problems, samples), effects, accuracy in itertools.product(SEEDS, DESIGNS, EFFECTS, ACCURACIES)
]


def mean_accuracy(logit: Array | float, sd: float) -> Array:
    """E[sigmoid(logit + N(0, sd^2))], elementwise over [N] or of a number, by Gauss-Hermite quadrature."""
    nodes, weights = _quadrature()
    return 1 / (1 + np.exp(-np.asarray(logit)[..., None] - sd * nodes)) @ weights


@functools.cache
def _quadrature() -> tuple[Array, Array]:
    """Nodes of a standard normal and their weights, whose sum is 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    return nodes, weights / weights.sum()


def intercept_for(accuracy: float, sd: float) -> float:
    """b with E[sigmoid(b + N(0, sd^2))] = accuracy, by bisection."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_accuracy(middle, sd) < accuracy else (low, middle)
    return (low + high) / 2


def draw_scores(rng: np.random.Generator, cell: Cell, simulations: int, methods: int = 1) -> list[tuple[Array, Array]]:
    """Scores [N, S, I] and true accuracies [N] of `methods` equal methods: the same problems, seeds and rest of their
    own (with one seed, whose effect belongs to the checkpoint, that is shared too).
    """
    seed_sd, problem_sd, rest_sd = EFFECTS[cell.effects]
    intercept = intercept_for(cell.accuracy, math.hypot(seed_sd, problem_sd, rest_sd))
    shape = (simulations, cell.seeds, cell.problems)
    problems = problem_sd * rng.standard_normal((simulations, 1, cell.problems))
    seeds = seed_sd * rng.standard_normal((simulations, cell.seeds, 1))
    drawn = []
    for method in range(methods):
        if method and cell.seeds > 1:
            seeds = seed_sd * rng.standard_normal((simulations, cell.seeds, 1))
        logits = intercept + problems + seeds
        if rest_sd:
            logits = logits + rest_sd * rng.standard_normal(shape)
        scores = rng.binomial(cell.samples, 1 / (1 + np.exp(-logits))) / cell.samples
        truth = np.full(simulations, cell.accuracy)
        if cell.seeds == 1:
            truth = mean_accuracy(intercept + seeds[:, 0, 0], math.hypot(problem_sd, rest_sd))
        drawn.append((scores, truth))
    return drawn


def measure_interval(cell: Cell, simulations: int) -> tuple[float, float]:
    """The share of intervals that hold the true accuracy, and their mean width."""

    def measure(rng: np.random.Generator, batch: int) -> Array:
        ((y, truth),) = draw_scores(rng, cell, batch)
        low, high = accuracy_bounds(compute_mean_variance(y), [y])
        return np.array([(low <= truth) & (truth <= high), high - low])

    coverage, width = _means(measure, cell.generator(0), simulations)
    return float(coverage), float(width)


def measure_size(cell: Cell, simulations: int) -> float:
    """The share of paired tests at 5 % that tell two equal methods apart."""

    def rejects(rng: np.random.Generator, batch: int) -> Array:
        (a, _), (b, _) = draw_scores(rng, cell, batch, methods=2)
        estimate = compute_mean_variance(a - b)
        return np.abs(estimate.mean) > difference_halfwidths(estimate, cell.problems)

    return float(_means(rejects, cell.generator(1), simulations))


def _means(measure: Callable[[np.random.Generator, int], Array], rng: np.random.Generator, simulations: int) -> Array:
    """The means over simulations of what a batch of them gives, [..., N]."""
    batches = [min(BATCH, simulations - first) for first in range(0, simulations, BATCH)]
    return np.sum([measure(rng, batch).sum(-1) for batch in batches], axis=0) / simulations


def monte_carlo_error(share: float, simulations: int) -> float:
    """One standard error of a share that was counted in simulations."""
    return math.sqrt(share * (1 - share) / simulations)


def _table(title: str, shares: dict[Cell, float]) -> list[str]:
    """A row per design and kind of effects, a column per accuracy."""
    header = ["seeds", "problems × samples", "effects", *(f"{100 * accuracy:g}" for accuracy in ACCURACIES)]
    lines = [f"**{title}**", "", _row(header), _row(["---:", "---:", "---", *["---:"] * len(ACCURACIES)])]
    rows: dict[tuple[str, str, str], dict[float, str]] = {}
    for cell, share in shares.items():
        key = (str(cell.seeds), f"{cell.problems} × {cell.samples}", cell.effects)
        rows.setdefault(key, {})[cell.accuracy] = f"{100 * share:.1f}"
    return [*lines, *(_row([*key, *(row[accuracy] for accuracy in ACCURACIES)]) for key, row in rows.items()), ""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _summary(coverage: dict[Cell, float], simulations: int) -> list[str]:
    """How many cells lie where they should, and those that cover least."""
    low, high = TARGET
    below, above = (
        sum(sign * (share - end) > 0 for share in coverage.values()) for sign, end in ((-1, low), (1, high))
    )
    lines = [
        f"{len(coverage) - below - above} of {len(coverage)} cells lie in [{100 * low:g}, {100 * high:g}] %, {above} "
        f"above and {below} below. The lowest five:",
        "",
    ]
    for cell in sorted(coverage, key=lambda cell: coverage[cell])[:5]:
        share = coverage[cell]
        lines.append(
            f"- {100 * share:.1f} ± {100 * monte_carlo_error(share, simulations):.1f}: seeds {cell.seeds}, "
            f"{cell.problems} problems × {cell.samples}, accuracy {100 * cell.accuracy:g} %, {cell.effects}"
        )
    return [*lines, ""]


def render(coverage: dict[Cell, float], width: dict[Cell, float], size: dict[Cell, float], simulations: int) -> str:
    """The text of results/statistics/coverage.md."""
    largest = max(monte_carlo_error(share, simulations) for share in coverage.values())
    lines = [
        f"{simulations:,} simulations a cell, in %; one Monte-Carlo standard error is at most {100 * largest:.1f}. "
        f"Made by `python tests/measure/coverage.py --simulations {simulations}`. Columns are true accuracies in %. "
        "Effects are standard deviations in logits (seeds, problems, seed × problem): "
        f"{'; '.join(f'{name} {sds}' for name, sds in EFFECTS.items())}.",
        "",
        *_table("Coverage of the 95 % interval of an accuracy", coverage),
        *_summary(coverage, simulations),
        *_table("Mean width of that interval, in points", width),
        *_table("Size of the paired test at 5 %, two equal methods", size),
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Measures the coverage of the intervals and the size of the test.")
    parser.add_argument("--simulations", type=int, default=10_000, help="a cell")
    simulations = parser.parse_args(arguments).simulations
    coverage, width, size = {}, {}, {}
    for cell in CELLS:
        coverage[cell], width[cell] = measure_interval(cell, simulations)
        size[cell] = measure_size(cell, simulations)
        print(f"coverage {100 * coverage[cell]:.1f}, size {100 * size[cell]:.1f}: {cell}", flush=True)
    write_text(OUTPUT, render(coverage, width, size, simulations))
    lowest = min(coverage.values())
    return 1 if lowest < LEAST - 2 * monte_carlo_error(lowest, simulations) else 0


if __name__ == "__main__":
    sys.exit(main())
