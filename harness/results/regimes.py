"""Which method wins in which regime, at which rate, as Markdown: `python -m harness.regime_map`, whose help says what
the words mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from harness.config.decodings import column_of, task_of
from harness.results.cells import (
    EQUAL_COST,
    Cell,
    MethodRuns,
    at_equal_cost,
    at_equal_steps,
    compare_all,
    differences_to_opd,
    find_lead,
    main_runs,
    matrix,
    of_budget,
)
from harness.results.columns import title_of
from harness.results.leaderboard import ALPHA, BASELINE
from harness.results.markdown import table
from harness.results.orders import OWN_NAME, Turn, TurnedOrder, find_turns
from harness.results.render import NOTHING, format_interval
from harness.results.statistics import holm, mean_interval

AGAINST_OPD = (
    f"In how many cells of a regime a method is better than {BASELINE} / worse / not resolved at equal steps (paired "
    "by replicate and problem, Holm-corrected over all methods and cells of this table, 5 %), with the smallest and "
    "the largest difference in points; and its lowest score of all cells."
)
LEADER = (
    "The leader has the highest mean; it *wins* if its difference to every other method is resolved "
    "(paired by replicate and problem, all pairs of the cell, Holm-corrected, 5 %), else those that it cannot be "
    "told from follow it. At equal student tokens and operations all methods take part, in runs that had a budget "
    f"of them (setting.student_tokens, setting.operations) and met it within {EQUAL_COST - 1:.0%}. Without such "
    "runs a method has its longest ones that wrote at most as many tokens more than OPD's; who has none is named "
    "with what it wrote."
)
MOST_NAMED = 4  # of those that a leader cannot be told from, the highest means first
CELL_HEADER = ["regime", "schedule", "rate", "replicates"]


def render(cells: Mapping[Cell, Sequence[MethodRuns]], task: str) -> str:
    """The map and, for each regime and schedule, the scores behind it, as markdown."""
    rows = [
        [*_cell_name(cell, runs), *(verdict(runs) for verdict in VERDICTS.values())]
        for cell, runs in sorted(cells.items())
    ]
    parts = [f"Task {task}. {LEADER}", table([*CELL_HEADER, *VERDICTS], rows)]
    if summary := _against_opd(cells):
        parts += [f"### Against {BASELINE}, over all cells", AGAINST_OPD, summary]
    for regime, schedule in sorted({cell[:2] for cell in cells}):
        parts += [f"### {regime}, {schedule}", _scores(cells, regime, schedule)]
    return "\n\n".join(parts) + "\n"


def render_decodings(by_decoding: Mapping[str, Mapping[Cell, Sequence[MethodRuns]]], task: str) -> str:
    """`render`, the decodings of the task side by side, and what holds under all of them; as it is for one."""
    if len(by_decoding) == 1:
        ((decoding, cells),) = by_decoding.items()
        return render(cells, title_of(column_of(task_of(task), decoding)))
    names = {decoding: decoding or OWN_NAME for decoding in by_decoding}
    every = sorted({cell for cells in by_decoding.values() for cell in cells})
    first = next(iter(by_decoding.values()))
    parts = [f"Task {task} under {', '.join(names.values())}. {LEADER}"]
    for title, verdict in VERDICTS.items():
        rows = [
            [*_cell_name(cell, first[cell]), *(verdict(cells[cell]) for cells in by_decoding.values())]
            for cell in every
        ]
        heading = title[0].upper() + title[1:]
        parts += [f"### {heading}", table([*CELL_HEADER, *names.values()], rows)]
    parts += ["### Between decodings", _between(by_decoding)]
    for decoding, cells in by_decoding.items():
        if summary := _against_opd(cells):
            parts += [f"### Against {BASELINE}, over all cells, {names[decoding]}", AGAINST_OPD, summary]
    for regime, schedule in sorted({cell[:2] for cell in every}):
        for decoding, cells in by_decoding.items():
            parts += [f"### {regime}, {schedule}, {names[decoding]}", _scores(cells, regime, schedule)]
    return "\n\n".join(parts) + "\n"


def _cell_name(cell: Cell, runs: Sequence[MethodRuns]) -> list[str]:
    """What stands under CELL_HEADER."""
    counts = {len(r.evaluations) for r in main_runs(runs)}
    replicates = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return [cell[0], cell[1], f"{cell[2]:g}", replicates]


def _between(by_decoding: Mapping[str, Mapping[Cell, Sequence[MethodRuns]]]) -> str:
    """What holds under every decoding at equal steps, and the orders that turn round, in words."""
    winners: list[set[str]] = []
    turns: dict[Cell, list[TurnedOrder]] = {}
    for cell in sorted(next(iter(by_decoding.values()))):
        runs = {decoding: main_runs(cells[cell]) for decoding, cells in by_decoding.items()}
        leads = [find_lead(candidates) for candidates in runs.values()]
        winners.append({lead.leader if len(lead.intervals) > 1 and not lead.rivals else NOTHING for lead in leads})
        turns[cell] = find_turns({decoding: compare_all(candidates) for decoding, candidates in runs.items()})
    same = sum(len(found) == 1 and found != {NOTHING} for found in winners)
    none = sum(found == {NOTHING} for found in winners)
    counts = {turn: sum(order.turn is turn for found in turns.values() for order in found) for turn in Turn}
    lines = [
        f"One method wins under every decoding in {same} of {len(winners)} cells, none under any in {none}; in the "
        f"other {len(winners) - same - none} the verdict depends on the decoding. Over all pairs of methods and cells "
        f"the order turns round {sum(counts.values())} times: "
        + ", ".join(f"{count} {turn.value}" for turn, count in counts.items())
        + ". Resolved: by all pairs of the cell and decoding, Holm-corrected, 5 %."
    ]
    lines += [
        f"- {cell[0]}, {cell[1]} {cell[2]:g}: {order}"
        for cell, found in turns.items()
        for order in found
        if order.turn is Turn.RESOLVED
    ]
    return "\n".join([lines[0], *([""] if len(lines) > 1 else []), *lines[1:]])


def _left_out(runs: Sequence[MethodRuns], chosen: Sequence[MethodRuns]) -> str:
    """The methods that have no runs among the chosen, by their student tokens over OPD's; nothing without OPD."""
    if not chosen:
        return ""
    equal = {r.label: r.student_tokens for r in at_equal_steps(runs)}
    missing = sorted(equal.keys() - {r.label for r in chosen})
    listed = ", ".join(f"{label} ({equal[label] / equal[BASELINE]:.2f} x)" for label in missing)
    return f"; without {listed}" if missing else ""


def _at_equal_tokens(runs: Sequence[MethodRuns]) -> str:
    tokens = of_budget(runs, "student_tokens")
    longest = at_equal_cost(runs, lambda r: r.student_tokens)
    return _verdict_text(tokens) if tokens else _verdict_text(longest) + _left_out(runs, longest)


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
    if not verdict.rivals:
        return text + ", wins"
    more = len(verdict.rivals) - MOST_NAMED
    return f"{text}; or {', '.join(verdict.rivals[:MOST_NAMED])}" + (f" and {more} more" if more > 0 else "")


VERDICTS: Mapping[str, Callable[[Sequence[MethodRuns]], str]] = {  # of a cell's runs
    "leads at equal steps": lambda runs: _verdict_text(at_equal_steps(runs)),
    "at equal student tokens": _at_equal_tokens,
    "at equal operations": lambda runs: _verdict_text(of_budget(runs, "operations")),
}


def _against_opd(cells: Mapping[Cell, Sequence[MethodRuns]]) -> str:
    """Methods x regimes: what AGAINST_OPD says. Empty where no cell has a method beside OPD on two replicates."""
    by_cell = {cell: {r.label: r for r in main_runs(runs)} for cell, runs in sorted(cells.items())}
    regimes = sorted({cell[0] for cell in cells})
    measured = [(cell[0], differences_to_opd(by_label)) for cell, by_label in by_cell.items()]
    pairs = [(label, regime, d) for regime, differences in measured for label, d in differences.items()]
    adjusted = holm([difference.p_value for _, _, difference in pairs])
    found: dict[tuple[str, str], list[tuple[float, bool]]] = {}  # method and regime -> difference, resolved? by cell
    for (label, regime, difference), p in zip(pairs, adjusted, strict=True):
        found.setdefault((label, regime), []).append((difference.estimate, p <= ALPHA))
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
