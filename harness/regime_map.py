"""`python -m harness.regime_map FOLDER… [--output FILE.md]`: which method wins in which regime, at which rate, from finished comparisons.

A FOLDER is a comparison's, or a published one (runs.jsonl). A regime is a student and its teacher; a replicate is a seed
with a student of its own. A cell of the map is a regime at one learning rate and schedule. In every cell the methods that
all cells of the regime have are compared at equal steps, and at equal cost: student tokens, and estimated operations (harness.cost).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from harness.cost import run_flops
from harness.errors import UserError
from harness.results.collect import check_comparable, load_records
from harness.results.leaderboard import ALPHA, BASELINE
from harness.results.record import UNTRAINED, Evaluation, RunRecord, write_text
from harness.results.render import NOTHING, format_interval
from harness.results.statistics import Difference, Interval, holm, mean_interval, paired_difference

EQUAL_COST = (
    1.02  # a method costs as much as OPD up to this factor: samples of different policies differ in length a little
)

AGAINST_OPD = (
    f"In how many cells of a regime a method is better than {BASELINE} / worse / not resolved at equal steps (paired by replicate and problem, "
    "Holm-corrected over the methods of the cell, 5 %), with the smallest and the largest difference in points; and its lowest score of all cells."
)

Cell = tuple[str, str, float]  # regime, schedule of the learning rate, learning rate
Replicate = tuple[str, int]  # student and seed


@dataclass(frozen=True)
class Runs:
    """The replicates of one method in a cell."""

    label: str
    steps: int
    evaluations: Mapping[Replicate, Evaluation]
    training: Mapping[Replicate, Mapping[str, float]]  # RunRecord.training
    student_tokens: float  # mean over replicates
    flops: float | None  # likewise; None where that of a run is not known


@dataclass(frozen=True)
class Verdict:
    """Who leads among some runs, and who cannot be told from the leader."""

    intervals: Mapping[str, Interval]  # by label
    leader: str
    rivals: tuple[str, ...]  # difference to the leader not resolved (all pairs, Holm, 5 %); none: the leader wins


def load_cells(folders: Sequence[Path], task: str) -> dict[Cell, list[Runs]]:
    """All completed runs that were evaluated on the task, by cell. UserError for runs that must not stand in one cell."""
    records: dict[tuple[Cell, int], list[RunRecord]] = {}
    for folder in folders:
        for record in load_records(folder):
            if record.method not in UNTRAINED and record.status == "completed":
                records.setdefault((cell_of(record), record.setting["steps"]), []).append(record)
    cells: dict[Cell, list[Runs]] = {}
    for (cell, steps), found in sorted(records.items()):
        check_comparable(found)
        by_label: dict[str, list[RunRecord]] = {}
        for record in found:
            by_label.setdefault(record.label, []).append(record)
        cells.setdefault(cell, []).extend(runs_of(label, steps, group, task) for label, group in by_label.items())
    if not cells:
        raise UserError("none of the folders holds a completed run of a method; give folders of finished comparisons.")
    return cells


def of_common_methods(cells: Mapping[Cell, Sequence[Runs]]) -> dict[Cell, list[Runs]]:
    """Only the methods that every cell of a regime has, so that a cell in which more was run does not have more candidates."""
    labels = {
        regime: set.intersection(*({r.label for r in runs} for cell, runs in cells.items() if cell[0] == regime))
        for regime in {cell[0] for cell in cells}
    }
    return {cell: [r for r in runs if r.label in labels[cell[0]]] for cell, runs in cells.items()}


def cell_of(record: RunRecord) -> Cell:
    """A regime is named by its student's folder, which is called alike in every replicate."""
    setting = record.setting
    return Path(setting["student"]).name, setting["lr_schedule"], float(setting["learning_rate"])


def runs_of(label: str, steps: int, records: Sequence[RunRecord], task: str) -> Runs:
    """The replicates of one method in a cell, from their records."""
    evaluations: dict[Replicate, Evaluation] = {}
    training: dict[Replicate, Mapping[str, float]] = {}
    for record in records:
        replicate = (record.setting["student"], record.seed)
        scored = [evaluation for evaluation in record.evaluations if evaluation.task == task]
        if len(scored) != 1:
            raise UserError(
                f"{label} seed {record.seed} has {len(scored)} evaluations on {task}; publish one protocol."
            )
        if replicate in evaluations:
            raise UserError(f"{label} of student {replicate[0]} and seed {record.seed} is there twice; give it once.")
        evaluations[replicate], training[replicate] = scored[0], record.training
    tokens = float(np.mean([record.counters.student_tokens for record in records]))
    flops = [found for found in map(run_flops, records) if found is not None]
    known = len(flops) == len(records)
    return Runs(label, steps, evaluations, training, tokens, float(np.mean(flops)) if known else None)


def matrix(runs: Runs, replicates: Sequence[Replicate]) -> np.ndarray:
    """[S, I]: the share of successes of each problem, for the given replicates."""
    return np.array([np.array(runs.evaluations[r].correct) / runs.evaluations[r].samples for r in replicates])


def judge(candidates: Sequence[Runs]) -> Verdict:
    """The verdict among runs with different labels; a difference counts as resolved over two or more shared replicates."""
    protocols = {e.protocol_hash for runs in candidates for e in runs.evaluations.values()}
    if len(protocols) > 1:
        raise UserError(
            f"runs were evaluated under different protocols, {' and '.join(sorted(protocols))}; evaluate them alike."
        )
    intervals = {runs.label: mean_interval(matrix(runs, sorted(runs.evaluations))) for runs in candidates}
    leader = max(sorted(intervals), key=lambda label: intervals[label].estimate)
    pairs: list[tuple[str, str]] = []
    p_values: list[float] = []
    for a, b in combinations(sorted(candidates, key=lambda runs: runs.label), 2):
        shared = sorted(set(a.evaluations) & set(b.evaluations))
        if len(shared) > 1:
            pairs.append((a.label, b.label))
            p_values.append(paired_difference(matrix(a, shared), matrix(b, shared)).p_value)
    resolved = {pair for pair, p in zip(pairs, holm(p_values), strict=True) if p <= ALPHA}
    others = sorted(set(intervals) - {leader}, key=lambda label: -intervals[label].estimate)
    rivals = tuple(x for x in others if (x, leader) not in resolved and (leader, x) not in resolved)
    return Verdict(intervals, leader, rivals)


def at_equal_steps(runs: Sequence[Runs]) -> list[Runs]:
    """The runs of the number of steps that most methods have; the smaller one of two."""
    counts = Counter(r.steps for r in runs)
    steps = min(counts, key=lambda n: (-counts[n], n))
    return [r for r in runs if r.steps == steps]


def at_equal_cost(runs: Sequence[Runs], cost: Callable[[Runs], float | None]) -> list[Runs]:
    """Of every method the longest runs that cost no more than OPD's at equal steps; none without OPD or a known cost.

    So a method that gets by with less is judged by what it has, unless runs of more steps are among the folders; and a
    method that costs more has no place, unless runs of fewer steps are.
    """
    budget = next((cost(r) for r in at_equal_steps(runs) if r.label == BASELINE), None)
    if budget is None:
        return []
    chosen: dict[str, Runs] = {}
    for r in sorted(runs, key=lambda r: r.steps):
        spent = cost(r)
        if spent is not None and spent <= EQUAL_COST * budget:
            chosen[r.label] = r
    return list(chosen.values())


def render(cells: Mapping[Cell, Sequence[Runs]], task: str) -> str:
    """The map and, for each regime and schedule, the scores behind it, as markdown."""
    header = [
        "regime",
        "schedule",
        "rate",
        "replicates",
        "leads at equal steps",
        "at OPD's student tokens",
        "at OPD's operations",
    ]
    lines = [_line(header), _line(["---"] * len(header))]
    for cell, runs in sorted(cells.items()):
        equal = at_equal_steps(runs)
        groups = [equal, at_equal_cost(runs, lambda r: r.student_tokens), at_equal_cost(runs, lambda r: r.flops)]
        counts = {len(r.evaluations) for r in equal}
        replicates = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        lines.append(_line([cell[0], cell[1], f"{cell[2]:g}", replicates, *map(_verdict_text, groups)]))
    note = (
        f"Task {task}. The leader has the highest mean; it *wins* if its difference to every other method is resolved (paired by "
        "replicate and problem, all pairs of the cell, Holm-corrected, 5 %), else those that it cannot be told from follow it. "
        f"At equal cost a method takes part with its longest runs that cost at most {EQUAL_COST - 1:.0%} more than OPD's."
    )
    parts = [note, "\n".join(lines)]
    if summary := _against_opd(cells):
        parts += [f"### Against {BASELINE}, over all cells", AGAINST_OPD, summary]
    for regime, schedule in sorted({cell[:2] for cell in cells}):
        parts += [f"### {regime}, {schedule}", _scores(cells, regime, schedule)]
    return "\n\n".join(parts) + "\n"


def _verdict_text(candidates: Sequence[Runs]) -> str:
    if not candidates:
        return NOTHING
    verdict = judge(candidates)
    steps = {r.label: r.steps for r in candidates}
    mixed = len(set(steps.values())) > 1
    text = verdict.leader + (f" ({steps[verdict.leader]} steps)" if mixed else "")
    text += f" {format_interval(verdict.intervals[verdict.leader])}"
    if len(candidates) == 1:
        return text + ", alone"
    if all(len(r.evaluations) == 1 for r in candidates):
        return text + "; undecided, one replicate"
    return text + (f"; or {', '.join(verdict.rivals)}" if verdict.rivals else ", wins")


def _against_opd(cells: Mapping[Cell, Sequence[Runs]]) -> str:
    """Methods x regimes: what AGAINST_OPD says. Empty where no cell has a method beside OPD on two replicates."""
    tables = {cell: {r.label: r for r in at_equal_steps(runs)} for cell, runs in sorted(cells.items())}
    regimes = sorted({cell[0] for cell in cells})
    found: dict[tuple[str, str], list[tuple[float, bool]]] = {}  # method and regime -> difference, resolved? by cell
    for cell, table in tables.items():
        for label, difference in differences_to_opd(table).items():
            found.setdefault((label, cell[0]), []).append(difference)
    if not found:
        return ""
    header = ["method", *regimes, "lowest score"]
    lines = [_line(header), _line(["---", *["---:"] * (len(header) - 1)])]
    for label in sorted({label for label, _ in found} | {BASELINE}):
        runs = {cell: table[label] for cell, table in tables.items() if label in table}
        means = {cell: matrix(r, sorted(r.evaluations)).mean() for cell, r in runs.items()}
        worst = min(means, key=lambda cell: means[cell])
        where = f"{100 * means[worst]:.1f} ({worst[0]}, {worst[1]} {worst[2]:g})"
        lines.append(_line([label, *(_tally(found.get((label, regime), [])) for regime in regimes), where]))
    return "\n".join(lines)


def differences_to_opd(table: Mapping[str, Runs]) -> dict[str, tuple[float, bool]]:
    """Of a cell's runs by label: mean difference to OPD's on the replicates that both have, two or more, and whether it is resolved."""
    differences: dict[str, Difference] = {}
    for label, runs in table.items():
        shared = sorted(set(runs.evaluations) & set(table[BASELINE].evaluations)) if BASELINE in table else []
        if label != BASELINE and len(shared) > 1:
            differences[label] = paired_difference(matrix(runs, shared), matrix(table[BASELINE], shared))
    adjusted = holm([difference.p_value for difference in differences.values()])
    return {label: (d.estimate, p <= ALPHA) for (label, d), p in zip(differences.items(), adjusted, strict=True)}


def _tally(differences: Sequence[tuple[float, bool]]) -> str:
    if not differences:
        return NOTHING
    better, worse = (sum(resolved and sign * d > 0 for d, resolved in differences) for sign in (1, -1))
    values = [100 * d for d, _ in differences]
    return f"{better} / {worse} / {len(values) - better - worse} ({min(values):+.1f} to {max(values):+.1f})"


def _scores(cells: Mapping[Cell, Sequence[Runs]], regime: str, schedule: str) -> str:
    """Methods x rates: score with its interval, and the cost as a multiple of OPD's."""
    rates = sorted(cell[2] for cell in cells if cell[:2] == (regime, schedule))
    tables = {rate: {r.label: r for r in at_equal_steps(cells[(regime, schedule, rate)])} for rate in rates}
    header = ["method", *(f"{rate:g}" for rate in rates), "student tokens", "operations"]
    lines = [_line(header), _line(["---", *["---:"] * (len(header) - 1)])]
    for label in sorted({label for table in tables.values() for label in table}):
        scores = []
        for rate in rates:
            runs = tables[rate].get(label)
            scores.append(
                NOTHING if runs is None else format_interval(mean_interval(matrix(runs, sorted(runs.evaluations))))
            )
        ratios = [_ratio(tables, label, cost) for cost in (lambda r: r.student_tokens, lambda r: r.flops)]
        lines.append(_line([label, *scores, *ratios]))
    return "\n".join(lines)


def _ratio(tables: Mapping[float, Mapping[str, Runs]], label: str, cost: Callable[[Runs], float | None]) -> str:
    """Mean over rates of a method's cost over OPD's."""
    pairs = [(cost(t[label]), cost(t[BASELINE])) for t in tables.values() if label in t and BASELINE in t]
    known = [mine / base for mine, base in pairs if mine is not None and base]
    return f"{np.mean(known):.2f} x OPD's" if known else NOTHING


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m harness.regime_map", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="comparison folders, published or not")
    parser.add_argument("--task", default="arithmetic", help="the benchmark (default: arithmetic)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the map to this file")
    options = parser.parse_args(arguments)
    return write_and_print(
        lambda: render(of_common_methods(load_cells(options.folders, options.task)), options.task), options.output
    )


def write_and_print(make: Callable[[], str], output: Path | None) -> int:
    """Prints a text, and writes it to `output` if that is given; the exit code, 2 for bad input."""
    try:
        text = make()
        if output is not None:
            write_text(output, text)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {output} cannot be written ({error.strerror}); choose another file.", file=sys.stderr)
        return 2
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
