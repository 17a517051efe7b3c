"""The leaderboard as Markdown and as tables in the terminal, from the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness.config.decodings import DECODINGS
from harness.errors import UserError
from harness.files import write_json, write_text
from harness.results import distance, escape, markdown
from harness.results.columns import average_columns, title_of
from harness.results.cost import Cost
from harness.results.export import render_csv, render_latex
from harness.results.leaderboard import (
    BASELINE,
    FailedRun,
    Leaderboard,
    Row,
    Score,
    Task,
    leaderboard_to_dict,
)
from harness.results.orders import OWN_NAME
from harness.results.reference import AVERAGE, ReferenceRow
from harness.results.statistics import Difference, Interval
from harness.results.verdicts import HOW_TO_READ, describe_power, describe_powers, turns_sentence, verdict_sentence
from harness.types import UNTRAINED

NOTHING = "–"
ONE_SEED = "†"  # marks an interval that speaks of a checkpoint, not of the method
DOUBT = "‡"  # marks a published cell that may not be what it seems


@dataclass(frozen=True)
class Sheet:
    """One table; `header` and each of `rows` have the same number of cells."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    names: int = 2  # leading columns that are names, and stand left; the others are numbers
    key: str = ""  # what the words of the first table mean
    part: Literal["main", "detail", "cost"] = "main"  # a detail is folded on a page


def format_interval(interval: Interval) -> str:
    """`73.4 [70.1, 76.7]`, in percent."""
    mark = ONE_SEED if interval.seeds == 1 else ""
    return f"{_percent(interval.estimate)} [{_percent(interval.low)}, {_percent(interval.high)}]{mark}"


def format_difference(difference: Difference) -> str:
    """`+30.6 [26.0, 35.2]`, in percentage points."""
    text = format_interval(difference)
    return text if text.startswith(("-", "0.0 ")) else f"+{text}"


def format_chance(interval: Interval) -> str:
    """`64 [58, 70]`, in percent."""
    return f"{100 * interval.estimate:.0f} [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


def format_ranks(ranks: tuple[int, int] | None) -> str:
    """`1` or `2–4`: the ranks that a method may have."""
    if ranks is None:
        return NOTHING
    return str(ranks[0]) if ranks[0] == ranks[1] else f"{ranks[0]}–{ranks[1]}"


def format_published(cell: ReferenceRow) -> str:
    """`36.0 ± 3.6‡`: as printed, with one standard error where it is known, and a mark where there is a doubt."""
    noise = "" if cell.standard_error is None else f" ± {cell.standard_error:.1f}"
    return f"{cell.value:.1f}{noise}{DOUBT if cell.doubt else ''}"


def _percent(share: float) -> str:
    text = f"{100 * share:.1f}"
    return "0.0" if text == "-0.0" else text


def describe(board: Leaderboard) -> str:
    """The line that says what the table is."""
    tasks = "; ".join(_describe_columns(board, name) for name in dict.fromkeys(task.name for task in board.tasks))
    order = f" {board.order}" if board.order else ""
    first = f"Setting {board.setting}, training hash {board.training_hash}, engine {board.engine}. Tasks: "
    first += f"{tasks or 'none evaluated'}. Seeds: {_join(board.seeds)}."
    scores = "Scores in %, with the 95 % interval of the mean over problems and training seeds"
    return first + bool(tasks) * f" {scores} ({ONE_SEED} one seed: problems only, this checkpoint only).{order}"


def _describe_columns(board: Leaderboard, name: str) -> str:
    """A task's design, for each of its decodings."""
    first, *_ = tasks = [task for task in board.tasks if task.name == name]
    if tasks == [first] and not first.decoding:
        size = f"{first.problems} problems × {first.samples} samples"
        return f"{name} ({size}, protocol {first.protocol_hash[:8]}{_grader(first)})"
    designs = [
        f"{task.decoding or OWN_NAME} × {task.samples}, protocol {task.protocol_hash[:8]}{_grader(task)}"
        for task in tasks
    ]
    return f"{name} ({first.problems} problems × samples: {'; '.join(designs)})"


def _grader(task: Task) -> str:
    if task.grader is None:
        return ""
    if task.graders_differ is None:
        return f", grader {task.grader}"
    return f", grader {task.grader}, strict and official differ on {_percent(task.graders_differ)} % of answers"


def footnotes(board: Leaderboard) -> list[str]:
    """What the words mean, and where the numbers come from."""
    decodings = [f"{name}: {DECODINGS[name]}" for name in board.decodings if name in DECODINGS]
    columns = f"above {BASELINE}: how often the method scores higher on a problem and seed, ties count half, in %."
    if any(row.method not in UNTRAINED and len(row.seeds) < len(board.seeds) for row in board.rows):
        columns += f" (1 of {len(board.seeds)}): a row with 1 of the table's seeds, which are those of all its runs."
    return [
        *(["Decodings: " + "; ".join(decodings) + "."] if decodings else []),
        *([columns] if board.tasks else []),
        f"Cost: mean per completed run, peak memory the maximum; measured on {', '.join(board.hardware) or 'unknown'}. "
        "GPU h is estimated: seconds of all phases times the GPUs of the run. Operations are estimated from tokens "
        "(harness/results/flops.py); seconds: rollout, scoring and update.",
        f"Code: commit {', '.join(board.commits) or 'unknown'}.",
    ]


def build_sheets(board: Leaderboard) -> list[Sheet]:
    """The summary of several tasks, tables of each, of costs, and of what was published; failed runs are rows."""
    averages = average_columns([task.column for task in board.tasks])
    sheets = [_summary_sheet(board, column, parts) for column, parts in averages.items()]
    if len(averages) > 1:
        said = f"Under each decoding: {verdict_sentence(board, AVERAGE)}. {turns_sentence(board, AVERAGE)}"
        sheets[-1] = replace(sheets[-1], note=f"{sheets[-1].note} {said}")
    for name in dict.fromkeys(task.name for task in board.tasks):
        tasks = [task for task in board.tasks if task.name == name]
        if len(tasks) == 1:
            sheets += [_task_sheet(board, tasks[0]), _samples_sheet(board, tasks[0])]
        else:
            sheets += [_scores_sheet(board, tasks), _differences_sheet(board, tasks), _decodings_sheet(board, tasks)]
    sheets = [replace(sheets[0], key=HOW_TO_READ), *sheets[1:]] if sheets else [_failures_sheet(board)]
    if board.distance is not None:
        sheets += _distance_sheets(board.distance)
    return [*sheets, *(_cost_sheets(board) if board.rows else []), *_published_sheets(board.published)]


def _summary_sheet(board: Leaderboard, column: str, parts: Sequence[str]) -> Sheet:
    """An average beside the columns that it is over."""
    header = ("method", *map(title_of, parts), title_of(column), f"minus {BASELINE}", "rank")
    rows = []
    for row in board.rows:
        average = row.score(column)
        scores = [*(row.scores.get(part) for part in parts), average]
        cells = [NOTHING if score is None else format_interval(score.interval) for score in scores]
        difference = _difference_cell(average) if average else NOTHING
        ranks = format_ranks(average.ranks if average else None)
        rows.append((_label(board, row, column), *cells, difference, ranks))
    failed = [
        (f"{run.label} seed {run.seed}", f"failed: {run.reason}", *[NOTHING] * (len(header) - 2))
        for run in board.failed
    ]
    above, below = _split_teacher(board, rows)
    title = title_of(column).replace(AVERAGE, "all tasks")
    return Sheet(title, header, (*above, *failed, *below), _note(board, column), names=1)


def _scores_sheet(board: Leaderboard, tasks: Sequence[Task]) -> Sheet:
    """A task's scores under its decodings, side by side."""
    header = ("method", "seeds", *(task.decoding or OWN_NAME for task in tasks), "ranks")
    rows = []
    for row in board.rows:
        scores = [row.scores.get(task.column) for task in tasks]
        cells = [NOTHING if score is None else _score_cell(row, score) for score in scores]
        ranks = " / ".join(format_ranks(score.ranks if score else None) for score in scores)
        wins = [task.decoding or OWN_NAME for task in tasks if board.winners[task.column] == row.label]
        mark = f" (wins: {', '.join(wins)})" if wins else ""
        ranked = NOTHING if row.method in UNTRAINED else ranks
        rows.append((row.label + mark, _seeds(board, row, row.seeds), *cells, ranked))
    above, below = _split_teacher(board, rows)
    failed = [_failure_cells(run, len(header)) for run in board.failed]
    name = tasks[0].name
    note = f"Under each decoding (all pairs, Holm-corrected, 5 %): {verdict_sentence(board, name)}."
    parts = [note, turns_sentence(board, name), describe_powers(board, [task.column for task in tasks])]
    return Sheet(name, header, (*above, *failed, *below), " ".join(filter(None, parts)))


def _differences_sheet(board: Leaderboard, tasks: Sequence[Task]) -> Sheet:
    """A task's differences to the baseline under its decodings, side by side."""
    header = ("method", *(task.decoding or OWN_NAME for task in tasks))
    scores = [(row.label, [row.scores.get(task.column) for task in tasks]) for row in board.rows]
    rows = tuple((label, *(NOTHING if s is None else _difference_cell(s) for s in found)) for label, found in scores)
    return Sheet(f"{tasks[0].name}, minus {BASELINE}", header, rows, "", names=1, part="detail")


def _decodings_sheet(board: Leaderboard, tasks: Sequence[Task]) -> Sheet:
    """What else is known of a method under each decoding, a row for each."""
    voted = any(score.maj_at_k for row in board.rows for task in tasks if (score := row.scores.get(task.column)))
    header = ("method", "decoding", f"above {BASELINE}", "pass@k", *(["maj@k"] if voted else []), "truncated")
    rows = []
    for row in board.rows:
        for task, score in ((task, score) for task in tasks if (score := row.scores.get(task.column))):
            chance = format_chance(score.difference.improvement) if score.difference else NOTHING
            intervals = [score.pass_at_k, score.maj_at_k][: 1 + voted]
            cells = [NOTHING if interval is None else format_interval(interval) for interval in intervals]
            name = f"{task.decoding or OWN_NAME} × {task.samples}"
            rows.append((row.label, name, chance, *cells, f"{_percent(score.truncated_frac)} %"))
    note = "k: the samples of a problem."
    return Sheet(f"{tasks[0].name}, by decoding", header, tuple(rows), note, part="detail")


def _task_sheet(board: Leaderboard, task: Task) -> Sheet:
    header = ("method", "seeds", "score", f"minus {BASELINE}", f"above {BASELINE}", "rank")
    above, below = _split_teacher(board, [_score_cells(board, row, task, len(header)) for row in board.rows])
    failed = [_failure_cells(run, len(header)) for run in board.failed]
    return Sheet(title_of(task.column), header, (*above, *failed, *below), _note(board, task.column))


def _split_teacher(
    board: Leaderboard, cells: list[tuple[str, ...]]
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The rows above the failed runs, and the teacher's, below them."""
    teachers = sum(row.method == "teacher" for row in board.rows)  # the last rows
    above = len(cells) - teachers
    return cells[:above], cells[above:]


def _note(board: Leaderboard, column: str) -> str:
    if sum(column in row.scores for row in board.rows) == 1:
        return "One row: there is nothing to compare it with."
    winner = board.winners[column]
    sentence = (
        f"Winner: {winner}; its difference to every other method is resolved (all pairs, Holm-corrected, 5 %)."
        if winner
        else "No winner: no method's difference to every other one is resolved (all pairs, Holm-corrected, 5 %)."
    )
    return f"{sentence} {describe_power(board, column)}".rstrip()


def _label(board: Leaderboard, row: Row, column: str) -> str:
    return row.label + (" (winner)" if board.winners[column] == row.label else "")


def _difference_cell(score: Score) -> str:
    if score.difference is None:
        return NOTHING
    text = format_difference(score.difference)
    if score.difference_seeds != score.seeds:
        text += f" on {_seed_list(score.difference_seeds)}"
    return text


def _score_cells(board: Leaderboard, row: Row, task: Task, columns: int) -> tuple[str, ...]:
    score = row.scores.get(task.column)
    if score is None:
        return row.label, _join(row.seeds), "not evaluated", *[NOTHING] * (columns - 3)
    seeds = _seeds(board, row, score.seeds)
    chance = format_chance(score.difference.improvement) if score.difference else NOTHING
    return (
        *(_label(board, row, task.column), seeds, format_interval(score.interval), _difference_cell(score)),
        *(chance, format_ranks(score.ranks)),
    )


def _seeds(board: Leaderboard, row: Row, seeds: Sequence[int]) -> str:
    """`0, 1 (2 of 3)`, where a method lacks some."""
    whole = row.method in UNTRAINED or len(seeds) == len(board.seeds)
    return _join(seeds) + ("" if whole else f" ({len(seeds)} of {len(board.seeds)})")


def _score_cell(row: Row, score: Score) -> str:
    """A score beside those of other decodings, with its seeds where they are not the row's."""
    return format_interval(score.interval) + (f" on {_seed_list(score.seeds)}" if score.seeds != row.seeds else "")


def _seed_list(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {_join(seeds)}"


def _samples_sheet(board: Leaderboard, task: Task) -> Sheet:
    """What the samples say besides the mean of their scores."""
    scored = [(row.label, score) for row in board.rows if (score := row.scores.get(task.column))]
    voted = any(score.maj_at_k for _, score in scored)
    columns = [f"pass@{task.samples}"] * (task.samples > 1) + [f"maj@{task.samples}"] * voted
    rows = []
    for label, score in scored:
        intervals = [score.pass_at_k, score.maj_at_k][: len(columns)]
        cells = [NOTHING if interval is None else format_interval(interval) for interval in intervals]
        rows.append((label, *cells, f"{_percent(score.truncated_frac)} %"))
    header = ("method", *columns, "truncated")
    return Sheet(f"{title_of(task.column)}, by sample", header, tuple(rows), "", names=1, part="detail")


def _published_sheets(cells: Sequence[ReferenceRow]) -> list[Sheet]:
    """A table per published table: not ours, not made under our conditions."""
    sheets = []
    for table in dict.fromkeys(cell.table for cell in cells):
        mine = [cell for cell in cells if cell.table == table]
        benchmarks = list(dict.fromkeys(cell.benchmark for cell in mine))
        rows: dict[str, dict[str, str]] = {}
        for cell in mine:
            rows.setdefault(cell.label, {})[cell.benchmark] = format_published(cell)
        body = tuple((label, *(row.get(name, NOTHING) for name in benchmarks)) for label, row in rows.items())
        note = (
            f"Source: {mine[0].source}. One run each; ± is the least noise that a run of this size has (one standard "
            f"error of independent samples), not the authors' statement. {DOUBT} a cell in doubt, see "
            "results/reference."
        )
        sheets.append(Sheet(f"published: {table}", ("method", *benchmarks), body, note, names=1))
    return sheets


def _distance_sheets(table: distance.DistanceTable) -> list[Sheet]:
    """How far each method's students are from the teacher: the verdict without a benchmark."""
    title, rows = "distance to the teacher", distance.cells(table, NOTHING, ONE_SEED)
    found = [Sheet(title, distance.header(table), rows, distance.note(table))]
    if rows:
        rows = distance.sample_cells(table, NOTHING, ONE_SEED)
        header, note = distance.SAMPLE_HEADER, distance.SAMPLE_NOTE
        found.append(Sheet(f"{title}, by sample", header, rows, note, names=1, part="detail"))
    return found


def _failures_sheet(board: Leaderboard) -> Sheet:
    header = ("method", "seeds", "score")
    evaluated = [(row.label, _join(row.seeds), "not evaluated") for row in board.rows]
    note = "Nothing to compare." if board.distance is None else "No task was evaluated; the distance to the teacher:"
    return Sheet("runs", header, (*evaluated, *(_failure_cells(run, 3) for run in board.failed)), note)


def _failure_cells(run: FailedRun, columns: int) -> tuple[str, ...]:
    text = f"failed: {run.reason}"
    return run.label, str(run.seed), text, *[NOTHING] * (columns - 3)


def _cost_sheets(board: Leaderboard) -> list[Sheet]:
    """Of the training: tokens, operations and seconds, also over the baseline's; and where the seconds went."""
    header = (
        *("method", "student tokens", "teacher tokens", "data tokens", "scored tokens"),
        *("operations", f"x {BASELINE}", "seconds", f"x {BASELINE}"),
    )
    phases = ("method", "rollout s", "scoring s", "update s", "eval s", "peak MiB", "GPU h")
    base = next((row.cost for row in board.rows if row.label == BASELINE), None)
    work = tuple((row.label, *_work_cells(row.cost, base)) for row in board.rows)
    spent = tuple((row.label, *_phase_cells(row.cost)) for row in board.rows)
    return [
        Sheet("cost", header, work, "", names=1, part="cost"),
        Sheet("cost, by phase", phases, spent, "", names=1, part="cost"),
    ]


def _work_cells(cost: Cost, base: Cost | None) -> list[str]:
    tokens = (cost.student_tokens, cost.teacher_tokens, cost.reference_tokens, cost.scored_tokens)
    operations = NOTHING if cost.operations is None else f"{cost.operations:.3g}"
    return [
        *(f"{count:,.0f}" for count in tokens),
        *(operations, _ratio(cost.operations, base.operations if base else None)),
        *(f"{cost.training_s:,.1f}", _ratio(cost.training_s, base.training_s if base else None)),
    ]


def _ratio(value: float | None, base: float | None) -> str:
    return f"{value / base:.2f}" if value and base else NOTHING


def _phase_cells(cost: Cost) -> list[str]:
    seconds = [f"{time:.1f}" for time in (cost.rollout_s, cost.scoring_s, cost.update_s, cost.evaluation_s)]
    hours = NOTHING if cost.gpu_hours is None else f"{cost.gpu_hours:,.2f}"
    return [*seconds, f"{cost.peak_memory_bytes / 2**20:,.0f}", hours]


def _join(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def render_markdown(board: Leaderboard) -> str:
    """The content of leaderboard.md."""
    parts = [f"{escape.markdown(describe(board))} Made by {escape.code(board.command)}."]
    for sheet in build_sheets(board):
        parts.append(f"### {escape.markdown(sheet.title)}")
        parts.append(markdown.table(sheet.header, sheet.rows, "l" * sheet.names + "r"))
        parts += [escape.markdown(text) for text in (sheet.note, sheet.key) if text]
    return "\n\n".join([*parts, *map(escape.markdown, footnotes(board))]) + "\n"


def write_leaderboard(folder: Path, board: Leaderboard) -> None:
    """Writes leaderboard.md, .json, .csv and .tex into `folder`, each whole or not at all."""
    try:
        write_text(folder / "leaderboard.md", render_markdown(board))
        write_json(folder / "leaderboard.json", leaderboard_to_dict(board))
        write_text(folder / "leaderboard.csv", render_csv(board))
        write_text(folder / "leaderboard.tex", render_latex(board))
    except OSError as error:
        raise UserError(
            f"The leaderboard cannot be written to {folder} ({error.strerror}); make it writable."
        ) from error
