"""Which figures a page has: verdicts, scores, learning curves and dynamics, each a group of panels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.decodings import decoding_of, task_of
from harness.report.curves import AXES, OPERATIONS, build_curves
from harness.report.plots import Estimate, Metric, Panel, Scale, draw_curves, draw_forest, shared_limits
from harness.report.source import Source
from harness.report.theme import Look
from harness.results.leaderboard import BASELINE
from harness.results.record import CURVE, START
from harness.results.render import format_difference, format_interval
from harness.results.verdicts import Headline, headlines
from harness.types import UNTRAINED

MAIN_METRICS = (
    Metric("kl/reverse_k1", "Reverse KL", "sampled estimate of KL(student ‖ teacher), nats per token"),
    Metric("grad_norm", "Gradient norm", "before clipping"),
    Metric("entropy/student", "Student entropy", "sampled estimate, nats per token"),
    Metric("outlier/frac", "Outliers", "student tokens that a draw with P_trust = min(π_T/π_S, 1) rejects", True),
)
MORE_METRICS = (
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
_ELSEWHERE = ("step", "learning_rate", OPERATIONS, *(metric.key for metric in (*MAIN_METRICS, *MORE_METRICS)))
_ELSEWHERE_GROUPS = (CURVE, START, "time/", "tokens/")
_POINTS = 1600  # of a figure, over all its curves
_FEWEST_POINTS, _MOST_POINTS = 40, 100  # of a curve
_SMOOTHED = 12  # windows of a smoothed curve


@dataclass(frozen=True)
class FigureGroup:
    """Figures that stand together under one heading."""

    title: str
    panels: tuple[Panel, ...]
    labels: tuple[str, ...] = ()  # for the legend
    window: int = 1  # points that a smoothed curve's are means of


@dataclass(frozen=True)
class Verdict:
    """A headline with the figure that shows it."""

    headline: Headline
    panel: Panel | None  # differences to the baseline; None: no method has one


# ---- scores


def verdict_figures(source: Source, looks: Mapping[str, Look], prefix: str = "") -> list[Verdict]:
    """The headlines of a comparison, each with the differences to the baseline, all on one scale."""
    found = headlines(source.board)
    differences = {headline.column: _differences(source, headline.column) for headline in found}
    scale = Scale(zero=True, limits=shared_limits(list(differences.values())))
    return [
        Verdict(headline, _difference_panel(differences[headline.column], f"{prefix}verdict-{number}", looks, scale))
        for number, headline in enumerate(found)
    ]


def score_group(source: Source, task: str, prefix: str, looks: Mapping[str, Look]) -> FigureGroup:
    """A task's intervals: the scores under its decodings, then the differences that are not at the page's top."""
    columns = [column for column in source.evaluations if task_of(column) == task]
    at_the_top = {headline.column for headline in headlines(source.board)}
    panels: list[Panel | None] = []
    for number, column in enumerate(columns):
        panels.append(_score_panel(source, column, f"{prefix}score-{number}", looks))
    for number, column in enumerate(column for column in columns if column not in at_the_top):
        title, key = _under(f"Minus {BASELINE}", column), f"{prefix}difference-{number}"
        panels.append(_difference_panel(_differences(source, column), key, looks, Scale(zero=True), title=title))
    return FigureGroup(task, tuple(panel for panel in panels if panel is not None))


def _score_panel(source: Source, column: str, key: str, looks: Mapping[str, Look]) -> Panel:
    """The student and the methods; the teacher is a line, since it may be far away."""
    estimates = {
        row.label: Estimate(row.label, format_interval(score.interval), score.interval)
        for row in source.board.rows
        if (score := row.scores.get(column))
    }
    teacher = estimates.pop("teacher", None) if len(estimates) > 1 else None
    words = (_under("Score", column), "%, with the 95 % interval.")
    return draw_forest(key, words, list(estimates.values()), looks, scale=Scale(reference=teacher))


def _differences(source: Source, column: str) -> list[Estimate]:
    """Of every method that shares a seed with the baseline."""
    return [
        Estimate(row.label, format_difference(difference), difference)
        for row in source.board.rows
        if row.method not in UNTRAINED and (score := row.score(column)) and (difference := score.difference) is not None
    ]


def _difference_panel(
    estimates: Sequence[Estimate], key: str, looks: Mapping[str, Look], scale: Scale, title: str = f"Minus {BASELINE}"
) -> Panel | None:
    words = (title, "points, paired, with the 95 % interval.")
    return draw_forest(key, words, estimates, looks, scale=scale) if estimates else None


def _under(title: str, column: str) -> str:
    return ", ".join(filter(None, (title, decoding_of(column))))


# ---- curves


@dataclass(frozen=True)
class CurveJob:
    """Figures of metrics over an axis."""

    title: str
    axis: str
    metrics: tuple[Metric, ...]
    smooth: bool = False


def curve_jobs(source: Source) -> list[CurveJob]:
    """Learning curves on each axis, the main dynamics, the others, then whatever else the methods logged."""
    keys = sorted({key for runs in source.metrics.values() for rows in runs for row in rows for key in row})
    learned = tuple(
        Metric(key, key.removeprefix(CURVE), "of the development problems, solved", True)
        for key in keys
        if key.startswith(CURVE)
    )
    main, more = (tuple(m for m in metrics if m.key in keys) for metrics in (MAIN_METRICS, MORE_METRICS))
    rest = tuple(Metric(key, key) for key in keys if key not in _ELSEWHERE and not key.startswith(_ELSEWHERE_GROUPS))
    return [
        *(CurveJob(title, axis, learned) for axis, title in AXES.items()),
        CurveJob("Dynamics", "step", main, smooth=True),
        CurveJob("More of the dynamics, step by step", "step", more),
        CurveJob("Everything else that was logged", "step", rest),
    ]


def draw_group(
    key: str, job: CurveJob, source: Source, looks: Mapping[str, Look], done: Callable[[Any], Any]
) -> FigureGroup:
    """The figures of a job; `done` is called after each."""
    points = max(_FEWEST_POINTS, min(_MOST_POINTS, _POINTS // max(1, len(source.metrics))))
    steps = max((len(rows) for runs in source.metrics.values() for rows in runs), default=0)
    window = 2 * (steps // _SMOOTHED // 2) + 1 if job.smooth else 1
    panels: list[Panel] = []
    drawn: set[str] = set()
    for number, metric in enumerate(job.metrics):
        curves = build_curves(source.metrics, metric.key, job.axis, points, window=window)
        if curves:
            panels.append(draw_curves(f"{key}-{number}", metric, curves, looks, axis=job.axis))
            drawn |= {curve.label for curve in curves}
        done(None)
    labels = tuple(label for label in source.labels if label in drawn)
    return FigureGroup(job.title, tuple(panels), labels, window=window)
