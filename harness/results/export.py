"""The leaderboard as CSV (a row per method and task, for other programs) and as LaTeX (a booktabs
table, for papers).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from harness.config.decodings import OWN, decoding_of, task_of
from harness.results.columns import average_columns
from harness.results.escape import csv_cell, latex, one_line
from harness.results.leaderboard import BASELINE, Leaderboard, Row, Score
from harness.results.reference import AVERAGE, ReferenceRow
from harness.types import UNTRAINED

DECODING = "decoding"  # a column where a task has several, or one with a name
CSV_COLUMNS = (
    *("block", "method", "seeds", "task", "protocol", "problems", "samples", "score", "low", "high", "standard_error"),
    *(
        "minus_baseline",
        "minus_low",
        "minus_high",
        "p_value",
        "detectable",
        "above_baseline",
        "rank_best",
        "rank_worst",
    ),
    *("winner", "pass_at_k", "pass_low", "pass_high", "maj_at_k", "maj_low", "maj_high", "truncated_frac"),
    *("student_tokens", "teacher_tokens", "scored_tokens", "rollout_s", "scoring_s", "update_s", "evaluation_s"),
    *("peak_memory_bytes", "gpu_hours", "source", "reason"),
)


def render_csv(board: Leaderboard) -> str:
    """The content of leaderboard.csv: blocks `measured`, `failed` and `published`; shares in [0, 1], published ones
    too.
    """
    sink = io.StringIO()
    columns = list(CSV_COLUMNS)
    if board.decodings:
        columns.insert(columns.index("protocol"), DECODING)
    writer = csv.DictWriter(sink, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in _csv_rows(board))
    return sink.getvalue()


def _csv_rows(board: Leaderboard) -> Iterator[dict[str, Any]]:
    averages = average_columns([task.column for task in board.tasks])
    for row in board.rows:
        cost = {key: getattr(row.cost, key) for key in CSV_COLUMNS if hasattr(row.cost, key)}
        for task in board.tasks:
            known = {
                "task": task.name,
                "protocol": task.protocol_hash,
                "problems": task.problems,
                "samples": task.samples,
                **({DECODING: task.decoding} if board.decodings else {}),
            }
            if task.column in row.scores:
                yield known | _score_cells(board, row, task.column, row.scores[task.column]) | cost
        for column in averages:
            if (average := row.score(column)) is not None:
                known = {"task": AVERAGE, **({DECODING: decoding_of(column)} if board.decodings else {})}
                yield known | _score_cells(board, row, column, average) | cost
        if not row.scores:
            yield {"block": "measured", "method": row.label, "seeds": _join(row.seeds)} | cost
    for run in board.failed:
        yield {"block": "failed", "method": run.label, "seeds": str(run.seed), "reason": run.reason}
    for cell in board.published:
        yield {
            "block": "published",
            "method": cell.label,
            "task": cell.benchmark,
            "score": cell.value / 100,
            "standard_error": None if cell.standard_error is None else cell.standard_error / 100,
            "source": f"{cell.source} ({cell.table})",
            "reason": " ".join((cell.doubt or "").split()),
        }


def _score_cells(board: Leaderboard, row: Row, column: str, score: Score) -> dict[str, Any]:
    cells: dict[str, Any] = {"block": "measured", "method": row.label, "seeds": _join(score.seeds)}
    cells |= {"winner": int(board.winners[column] == row.label), "standard_error": score.interval.standard_error}
    for prefix, interval in (("score", score.interval), ("pass", score.pass_at_k), ("maj", score.maj_at_k)):
        if interval is not None:
            names = (
                ("score", "low", "high") if prefix == "score" else (f"{prefix}_at_k", f"{prefix}_low", f"{prefix}_high")
            )
            cells |= dict(zip(names, (interval.estimate, interval.low, interval.high), strict=True))
    if task_of(column) != AVERAGE:
        cells["truncated_frac"] = score.truncated_frac
    if (difference := score.difference) is not None:
        cells |= {"minus_baseline": difference.estimate, "minus_low": difference.low, "minus_high": difference.high}
        cells |= {"p_value": difference.p_value, "detectable": difference.detectable}
        cells["above_baseline"] = difference.improvement.estimate
    if score.ranks is not None:
        cells |= dict(zip(("rank_best", "rank_worst"), score.ranks, strict=True))
    return cells


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    return csv_cell(value) if isinstance(value, str) else value


def _join(seeds: tuple[int, ...]) -> str:
    return " ".join(map(str, seeds))


def render_latex(board: Leaderboard) -> str:
    """The content of leaderboard.tex: a tabular for the package booktabs, to be \\input into a table."""
    names = [task.column for task in board.tasks]
    averages = list(average_columns(names))
    columns = names + averages
    of_order = [column for column in averages or names if decoding_of(column) == board.order_by]
    ranked = (of_order or columns or [""])[-1]
    lines = [
        f"% {one_line(board.command)}",
        f"% Setting {one_line(board.setting)}, training hash {board.training_hash}. Percent; brackets: 95 % interval; "
        f"rank: interval of ranks{f' under {board.order_by}' if board.decodings else ''}; bold: resolved winner.",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}r}}",
        r"\toprule",
        _latex_row(["Method", *(latex(name.replace("@", ", ")) for name in columns), "Rank"]),
        r"\midrule",
    ]
    blocks = [
        [_latex_scores(board, row, columns, ranked) for row in board.rows],
        [_latex_differences(row, columns) for row in board.rows if board.decodings and _is_compared(row)],
        [_latex_failure(run.label, run.seed, run.reason, len(columns)) for run in board.failed],
        _latex_published(board.published, columns, board.order_by),
    ]
    lines.append("\n\\midrule\n".join("\n".join(block) for block in blocks if block))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex_scores(board: Leaderboard, row: Row, columns: list[str], ranked: str) -> str:
    """A row; its rank is that of the column `ranked`."""
    scores = [row.score(name) for name in columns]
    cells = []
    for name, score in zip(columns, scores, strict=True):
        text = "--"
        if score is not None:
            interval = score.interval
            dagger = r"$^\dagger$" if interval.seeds == 1 else ""
            estimate = f"{100 * interval.estimate:.1f}"
            if board.winners[name] == row.label:
                estimate = rf"\textbf{{{estimate}}}"
            text = f"{estimate} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]{dagger}"
        cells.append(text)
    last = row.score(ranked)
    ranks = "--"
    if last is not None and last.ranks is not None and row.method not in UNTRAINED:
        best, worst = last.ranks
        ranks = str(best) if best == worst else f"{best}--{worst}"
    return _latex_row([latex(row.label), *cells, ranks])


def _is_compared(row: Row) -> bool:
    return row.method not in UNTRAINED and any(score.difference for score in row.scores.values())


def _latex_differences(row: Row, columns: list[str]) -> str:
    """A method minus the baseline, in percentage points, under the same columns."""
    cells = []
    for score in map(row.score, columns):
        text = "--"
        if score is not None and (difference := score.difference) is not None:
            dagger = r"$^\dagger$" if difference.seeds == 1 else ""
            low, high = f"{100 * difference.low:.1f}", f"{100 * difference.high:.1f}"
            text = f"{100 * difference.estimate:+.1f} [{low}, {high}]{dagger}"
        cells.append(text)
    return _latex_row([latex(f"{row.label} minus {BASELINE}"), *cells, "--"])


def _latex_failure(label: str, seed: int, reason: str, columns: int) -> str:
    return _latex_row(
        [f"{latex(label)} (seed {seed})", rf"\multicolumn{{{columns + 1}}}{{l}}{{failed: {latex(reason)}}}"]
    )


def _latex_published(cells: tuple[ReferenceRow, ...], columns: list[str], order_by: str) -> list[str]:
    """The published cells of our columns: percent ± the least noise of a single run, one standard error. Of several
    decodings they stand under the one that rows are ordered by.
    """
    lines = []
    names = [task_of(column) if decoding_of(column) in (OWN, order_by) else "" for column in columns]
    for table in dict.fromkeys(cell.table for cell in cells):
        mine = [cell for cell in cells if cell.table == table]
        source = latex(f"Published: {mine[0].source} ({table})")
        lines.append(rf"\multicolumn{{{len(columns) + 2}}}{{l}}{{\emph{{{source}}}}} \\")
        for label in dict.fromkeys(cell.label for cell in mine):
            values = {cell.benchmark: cell for cell in mine if cell.label == label}
            texts = [_latex_cell(values.get(name)) for name in names]
            lines.append(_latex_row([latex(label), *texts, "--"]))
    return lines


def _latex_cell(cell: ReferenceRow | None) -> str:
    if cell is None:
        return "--"
    noise = "" if cell.standard_error is None else rf" $\pm$ {cell.standard_error:.1f}"
    doubt = r"$^\ddagger$" if cell.doubt else ""
    return f"{cell.value:.1f}{noise}{doubt}"


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
