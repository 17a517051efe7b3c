"""Which method wins in which regime, at which rate, as Markdown: `python -m harness.regime_map`, whose help says what
the words mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from harness.results.cells import (
    EQUAL_COST,
    Cell,
    MethodRuns,
    at_equal_cost,
    at_equal_steps,
    differences_to_opd,
    find_lead,
    matrix,
    of_budget,
)
from harness.results.leaderboard import BASELINE
from harness.results.markdown import table
from harness.results.render import NOTHING, format_interval
from harness.results.statistics import mean_interval

AGAINST_OPD = (
    f"In how many cells of a regime a method is better than {BASELINE} / worse / not resolved at equal steps (paired "
    "by replicate and problem, Holm-corrected over the methods of the cell, 5 %), with the smallest and the largest "
    "difference in points; and its lowest score of all cells."
)


def render(cells: Mapping[Cell, Sequence[MethodRuns]], task: str) -> str:
    """The map and, for each regime and schedule, the scores behind it, as markdown."""
    header = [
        "regime",
        "schedule",
        "rate",
        "replicates",
        "leads at equal steps",
        "at equal student tokens",
        "at equal operations",
    ]
    rows = []
    for cell, runs in sorted(cells.items()):
        equal = main_runs(runs)
        tokens = of_budget(runs, "student_tokens")
        longest = at_equal_cost(runs, lambda r: r.student_tokens)
        verdicts = [
            _verdict_text(at_equal_steps(runs)),
            _verdict_text(tokens) if tokens else _verdict_text(longest) + _left_out(runs, longest),
            _verdict_text(of_budget(runs, "operations")),
        ]
        counts = {len(r.evaluations) for r in equal}
        replicates = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        rows.append([cell[0], cell[1], f"{cell[2]:g}", replicates, *verdicts])
    note = (
        f"Task {task}. The leader has the highest mean; it *wins* if its difference to every other method is resolved "
        "(paired by replicate and problem, all pairs of the cell, Holm-corrected, 5 %), else those that it cannot be "
        "told from follow it. At equal student tokens and operations all methods take part, in runs that had a budget "
        f"of them (setting.student_tokens, setting.operations) and met it within {EQUAL_COST - 1:.0%}. Without such "
        "runs a method has its longest ones that wrote at most as many tokens more than OPD's; who has none is named "
        "with what it wrote."
    )
    parts = [note, table(header, rows)]
    if summary := _against_opd(cells):
        parts += [f"### Against {BASELINE}, over all cells", AGAINST_OPD, summary]
    for regime, schedule in sorted({cell[:2] for cell in cells}):
        parts += [f"### {regime}, {schedule}", _scores(cells, regime, schedule)]
    return "\n\n".join(parts) + "\n"


def main_runs(runs: Sequence[MethodRuns]) -> list[MethodRuns]:
    """Those of equal steps; where there are none, those of another budget."""
    return at_equal_steps(runs) or of_budget(runs, "operations") or of_budget(runs, "student_tokens")


def _left_out(runs: Sequence[MethodRuns], chosen: Sequence[MethodRuns]) -> str:
    """The methods that have no runs among the chosen, by their student tokens over OPD's; nothing without OPD."""
    if not chosen:
        return ""
    equal = {r.label: r.student_tokens for r in at_equal_steps(runs)}
    missing = sorted(equal.keys() - {r.label for r in chosen})
    listed = ", ".join(f"{label} ({equal[label] / equal[BASELINE]:.2f} x)" for label in missing)
    return f"; without {listed}" if missing else ""


def _verdict_text(candidates: Sequence[MethodRuns]) -> str:
    if not candidates:
        return NOTHING
    verdict = find_lead(candidates)
    steps = {r.label: r.steps for r in candidates}
    mixed = len(set(steps.values())) > 1
    text = verdict.leader + (f" ({steps[verdict.leader]} steps)" if mixed else "")
    text += f" {format_interval(verdict.intervals[verdict.leader])}"
    if len(candidates) == 1:
        return text + ", alone"
    if all(len(r.evaluations) == 1 for r in candidates):
        return text + "; undecided, one replicate"
    return text + (f"; or {', '.join(verdict.rivals)}" if verdict.rivals else ", wins")


def _against_opd(cells: Mapping[Cell, Sequence[MethodRuns]]) -> str:
    """Methods x regimes: what AGAINST_OPD says. Empty where no cell has a method beside OPD on two replicates."""
    by_cell = {cell: {r.label: r for r in main_runs(runs)} for cell, runs in sorted(cells.items())}
    regimes = sorted({cell[0] for cell in cells})
    found: dict[tuple[str, str], list[tuple[float, bool]]] = {}  # method and regime -> difference, resolved? by cell
    for cell, by_label in by_cell.items():
        for label, difference in differences_to_opd(by_label).items():
            found.setdefault((label, cell[0]), []).append(difference)
    if not found:
        return ""
    header = ["method", *regimes, "lowest score"]
    rows = []
    for label in sorted({label for label, _ in found} | {BASELINE}):
        runs = {cell: by_label[label] for cell, by_label in by_cell.items() if label in by_label}
        means = {cell: matrix(r, sorted(r.evaluations)).mean() for cell, r in runs.items()}
        worst = min(means, key=lambda cell: means[cell])
        where = f"{100 * means[worst]:.1f} ({worst[0]}, {worst[1]} {worst[2]:g})"
        rows.append([label, *(_tally(found.get((label, regime), [])) for regime in regimes), where])
    return table(header, rows, "lr")


def _tally(differences: Sequence[tuple[float, bool]]) -> str:
    if not differences:
        return NOTHING
    better, worse = (sum(resolved and sign * d > 0 for d, resolved in differences) for sign in (1, -1))
    values = [100 * d for d, _ in differences]
    return f"{better} / {worse} / {len(values) - better - worse} ({min(values):+.1f} to {max(values):+.1f})"


def _scores(cells: Mapping[Cell, Sequence[MethodRuns]], regime: str, schedule: str) -> str:
    """Methods x rates: score with its interval, and the cost as a multiple of OPD's."""
    rates = sorted(cell[2] for cell in cells if cell[:2] == (regime, schedule))
    tables = {rate: {r.label: r for r in main_runs(cells[(regime, schedule, rate)])} for rate in rates}
    header = ["method", *(f"{rate:g}" for rate in rates), "student tokens", "operations", "seconds"]
    rows = []
    for label in sorted({label for by_label in tables.values() for label in by_label}):
        scores = []
        for rate in rates:
            runs = tables[rate].get(label)
            scores.append(
                NOTHING if runs is None else format_interval(mean_interval(matrix(runs, sorted(runs.evaluations))))
            )
        ratios = [
            _ratio(tables, label, cost) for cost in (lambda r: r.student_tokens, lambda r: r.flops, lambda r: r.seconds)
        ]
        rows.append([label, *scores, *ratios])
    return table(header, rows, "lr")


def _ratio(
    tables: Mapping[float, Mapping[str, MethodRuns]], label: str, cost: Callable[[MethodRuns], float | None]
) -> str:
    """Mean over rates of a method's cost over OPD's."""
    pairs = [(cost(t[label]), cost(t[BASELINE])) for t in tables.values() if label in t and BASELINE in t]
    known = [mine / base for mine, base in pairs if mine is not None and base]
    return f"{np.mean(known):.2f} x OPD's" if known else NOTHING
