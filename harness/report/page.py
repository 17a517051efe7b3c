"""Puts the page together: everything that the template shows, computed before it is rendered."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from harness.config.decodings import decoding_of, task_of
from harness.console.progress import MakeBar
from harness.report.curves import AXES, build_curves
from harness.report.items import FLIP, build_items
from harness.report.plots import Estimate, Metric, Panel, draw_curves, draw_forest
from harness.report.source import Source, records_of
from harness.report.theme import Look, assign_looks
from harness.report.tokens import HEADER, KINDS, build_steps
from harness.results.escape import visible
from harness.results.leaderboard import BASELINE
from harness.results.render import build_sheets, describe, footnotes, format_difference, format_interval
from harness.types import UNTRAINED

FOLDER = Path(__file__).parent
FIRST_METRICS = (
    Metric("kl/reverse_k1", "Reverse KL", "sampled estimate of KL(student ‖ teacher), nats per token"),
    Metric("grad_norm", "Gradient norm", "before clipping"),
    Metric("entropy/student", "Student entropy", "sampled estimate, nats per token"),
    Metric(
        "outlier/frac", "Outlier fraction", "student tokens that a draw with P_trust = min(π_T/π_S, 1) rejects", True
    ),
    Metric("outlier/hard_frac", "Hard outliers", "student tokens with a reward below −5 nats", True),
    Metric("kl/total_variation", "Total variation", "estimate of the mean distance between student and teacher"),
    Metric("reward/q001", "Reward, 0.1 % quantile", "log π_T − log π_S over the step's tokens, nats"),
    Metric("reward/q01", "Reward, 1 % quantile", "nats"),
    Metric("reward/q50", "Reward, median", "nats"),
    Metric("reward/q99", "Reward, 99 % quantile", "nats"),
    Metric("length/completion", "Completion length", "tokens, the prefix included"),
    Metric("truncated_frac", "Truncated", "completions that hit the length limit", True),
    Metric("length/prefix", "Prefix length", "tokens that the teacher wrote first"),
)
_ELSEWHERE = ("step", "learning_rate", *(metric.key for metric in FIRST_METRICS))
_ELSEWHERE_GROUPS = ("eval/", "time/", "tokens/")
_WINNER = re.compile(r" \((winner|wins: [^)]*)\)$")  # what follows a label in a table
_POINTS = 1600  # of a figure, over all its curves
_FEWEST_POINTS, _MOST_POINTS = 40, 100  # of a curve


@dataclass(frozen=True)
class FigureGroup:
    """Figures that stand together under one heading."""

    title: str
    panels: tuple[Panel, ...]
    labels: tuple[str, ...]  # for the legend


@dataclass(frozen=True)
class Table:
    """A plain table; the first `names` columns are names."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1
    note: str = ""
    title: str = ""


def render_page(source: Source, make_bar: MakeBar) -> str:
    """The whole page; the same folder gives the same text."""
    looks = assign_looks(source.labels)
    columns = list(source.evaluations)
    tasks = list(dict.fromkeys(map(task_of, columns)))
    curve_jobs = _curve_jobs(source)
    context: dict[str, Any] = {}
    with make_bar(
        "report", len(tasks) + len(columns) + sum(len(group.metrics) for group in curve_jobs) + 1, "part"
    ) as bar:

        def done(value: Any) -> Any:
            bar.advance()
            return value

        context["scores"] = [done(_score_group(source, task, number, looks)) for number, task in enumerate(tasks)]
        groups = [
            _draw_group(f"curve-{number}", job, source, looks, done=done) for number, job in enumerate(curve_jobs)
        ]
        context["items"] = [done(build_items(source, column)) for column in columns]
        context["steps"] = done(build_steps(source.samples))
    context |= {
        "learning": [group for group in groups[: len(AXES)] if group.panels],
        "dynamics": [group for group in groups[len(AXES) :] if group.panels],
    }
    context |= _plain_context(source, looks)
    return _environment(looks).get_template("template.html.jinja").render(context)


def _plain_context(source: Source, looks: Mapping[str, Look]) -> dict[str, Any]:
    board = source.board
    return {
        "board": board,
        "methods": source.methods,
        "summary": describe(board),
        "sheets": build_sheets(board),
        "footnotes": footnotes(board),
        "style": Markup((FOLDER / "style.css").read_text(encoding="utf-8")),
        "looks": looks,
        "unfinished": [label for label in source.metrics if not source.is_finished(label)],
        "has_folders": any(run.folder is not None for run in source.runs),
        "flip": FLIP,
        "kinds": KINDS,
        "token_header": HEADER,
        "setting": _setting_table(source),
        "knobs": _knob_table(source),
        "runs": _run_table(source),
        "versions": _version_table(source),
    }


# ---- figures


@dataclass(frozen=True)
class _CurveJob:
    title: str
    axis: str
    metrics: tuple[Metric, ...]


def _curve_jobs(source: Source) -> list[_CurveJob]:
    """Learning curves on each axis, then the dynamics, then whatever else the methods logged."""
    keys = sorted({key for runs in source.metrics.values() for rows in runs for row in rows for key in row})
    learned = tuple(
        Metric(key, key.removeprefix("eval/"), "accuracy on development problems", True)
        for key in keys
        if key.startswith("eval/")
    )
    first = tuple(metric for metric in FIRST_METRICS if metric.key in keys)
    rest = tuple(Metric(key, key) for key in keys if key not in _ELSEWHERE and not key.startswith(_ELSEWHERE_GROUPS))
    learning = [
        _CurveJob(title, axis, tuple(replace(metric, title=f"{metric.title} over {title}") for metric in learned))
        for axis, title in AXES.items()
    ]
    return [*learning, _CurveJob("Dynamics", "step", first), _CurveJob("Everything else that was logged", "step", rest)]


def _draw_group(
    key: str, job: _CurveJob, source: Source, looks: Mapping[str, Look], done: Callable[[Any], Any]
) -> FigureGroup:
    points = max(_FEWEST_POINTS, min(_MOST_POINTS, _POINTS // max(1, len(source.metrics))))
    panels: list[Panel] = []
    drawn: set[str] = set()
    for number, metric in enumerate(job.metrics):
        curves = build_curves(source.metrics, metric.key, job.axis, points)
        if curves:
            panels.append(draw_curves(f"{key}-{number}", metric, curves, looks, axis=job.axis))
            drawn |= {curve.label for curve in curves}
        done(None)
    return FigureGroup(job.title, tuple(panels), tuple(label for label in source.labels if label in drawn))


def _score_group(source: Source, task: str, number: int, looks: Mapping[str, Look]) -> FigureGroup:
    """A task's intervals: the scores under its decodings, then the differences."""
    columns = [column for column in source.evaluations if task_of(column) == task]
    keys = {column: f"{number}-{decoding_of(column)}".rstrip("-") for column in columns}
    panels = [_score_panel(source, column, keys[column], looks) for column in columns]
    panels += filter(None, (_difference_panel(source, column, keys[column], looks) for column in columns))
    return FigureGroup(task, tuple(panels), ())


def _score_panel(source: Source, column: str, key: str, looks: Mapping[str, Look]) -> Panel:
    scored = [(row, score) for row in source.board.rows if (score := row.scores.get(column))]
    estimates = [Estimate(row.label, format_interval(score.interval), score.interval) for row, score in scored]
    return draw_forest(f"score-{key}", _under("Score", column), "%, with the 95 % interval.", estimates, looks=looks)


def _difference_panel(source: Source, column: str, key: str, looks: Mapping[str, Look]) -> Panel | None:
    """None where no method has a difference to the baseline."""
    estimates = [
        Estimate(row.label, format_difference(difference), difference)
        for row in source.board.rows
        if row.method not in UNTRAINED
        and (score := row.scores.get(column))
        and (difference := score.difference) is not None
    ]
    title, note = _under(f"Minus {BASELINE}", column), "percentage points, paired, with the 95 % interval."
    return draw_forest(f"difference-{key}", title, note, estimates, looks=looks, zero=True) if estimates else None


def _under(title: str, column: str) -> str:
    return ", ".join(filter(None, (title, decoding_of(column))))


# ---- tables


def _setting_table(source: Source) -> Table:
    return Table(("key", "value"), tuple(_flat(source.runs[0].record.setting)), names=2)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", _show(value))]
    return rows


def _show(value: Any) -> str:
    return "–" if value is None else str(value)


def _knob_table(source: Source) -> Table:
    """A row per knob, those that were changed from their default first."""
    rows: list[tuple[str, ...]] = []
    for label in source.methods:
        record = records_of(source, label)[0]
        flat = _flat(record.knobs) or [("–", "no knobs")]
        changed = {key for key, _ in _flat(record.changed_knobs)}
        for key, value in sorted(flat, key=lambda entry: (entry[0] not in changed, entry[0])):
            rows.append((label, key, value, "changed" if key in changed else "default" if record.knobs else "–"))
    return Table(("method", "knob", "value", "from"), tuple(rows), names=4)


def _run_table(source: Source) -> Table:
    header = ("method", "seed", "status", "started", "finished", "commit", "hardware", "cores", "python")
    rows = []
    for run in source.runs:
        record, origin = run.record, run.record.provenance
        commit = str(origin.get("commit") or "unknown")[:12] + (" + local changes" if origin.get("dirty") else "")
        status = f"{record.status}: {' '.join(record.reason.split())}" if record.reason else record.status
        times = (record.started_at[:19].replace("T", " "), record.finished_at[:19].replace("T", " "))
        machine = (_show(origin.get(key)) for key in ("hardware", "cores", "python"))
        rows.append((record.label, str(record.seed), status, *(time or "–" for time in times), commit, *machine))
    return Table(header, tuple(rows), names=9, note="Times are UTC.")


def _version_table(source: Source) -> Table:
    """Package versions; a package with several of them names all."""
    versions: dict[str, set[str]] = {}
    for run in source.runs:
        for name, version in (run.record.provenance.get("versions") or {}).items():
            versions.setdefault(str(name), set()).add(str(version))
    return Table(("package", "version"), tuple((name, ", ".join(sorted(found))) for name, found in versions.items()), 2)


# ---- template


def _environment(looks: Mapping[str, Look]) -> jinja2.Environment:
    """Jinja with everything escaped; no text reaches the page unseen."""

    def finalize(value: Any) -> Any:
        return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value)

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _with_code
    environment.globals["chip"] = lambda text: _chip(str(text), looks)
    return environment


def _with_code(text: str) -> Markup:
    """Escaped text whose `quoted` parts are <code>."""
    parts = [escape(visible(part)) for part in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def _chip(text: str, looks: Mapping[str, Look]) -> Markup:
    """A name with its method's colour before it, where it is the name of one (a winner's has a mark behind it)."""
    look = looks.get(_WINNER.sub("", text))
    words = escape(visible(text))
    if look is None:
        return words
    dash = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "dashed"}[look.dash]
    chip = Markup('<span class="chip" style="border-top:3px {} var({})"></span>').format(dash, look.variable)
    return chip + words
