"""The figures of the page: intervals as a forest plot, metrics as curves with a band over seeds. Each comes with the
table behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from harness.report.curves import AXES, Curve
from harness.report.theme import INK, MUTED, Look, new_figure, style_context, titled, to_svg
from harness.results.escape import visible
from harness.results.statistics import Interval

WIDTH = 380  # of every figure, in CSS pixels at its natural size
_CURVE_HEIGHT = 220
_ROW = 40  # of a forest plot, height per label
_REFERENCE = 20  # height of the line of text that names a reference
_NEAR = 0.4  # of the range of the others: a reference farther beyond them is an arrow, so that it does not squeeze them
_POINTS_WITH_MARKERS = 20
_LABEL_WIDTH = 34  # characters of a label in a forest plot that fit beside its numbers


@dataclass(frozen=True)
class Panel:
    """A figure, what it says in words, and the numbers behind it."""

    title: str
    note: str  # unit and reading
    svg: Markup
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Metric:
    """A key of metrics.jsonl and how it is shown."""

    key: str
    title: str
    note: str = ""
    percent: bool = False


@dataclass(frozen=True)
class Estimate:
    """A row of a forest plot; values in percent."""

    label: str
    text: str  # the numbers, as the leaderboard writes them
    interval: Interval


@dataclass(frozen=True)
class Scale:
    """What a forest plot is read against; values in percent."""

    zero: bool = False  # the values are differences: the line of no difference is drawn
    limits: tuple[float, float] | None = None  # shared by several plots; None: of the estimates alone
    reference: Estimate | None = None  # a line of its own, out of the way of the others


_ALONE = Scale()


def draw_forest(
    key: str, words: tuple[str, str], estimates: Sequence[Estimate], looks: Mapping[str, Look], scale: Scale = _ALONE
) -> Panel:
    """Estimates with their 95 % intervals, one row each, best read against each other; `words`: title and note."""
    (title, note), zero = words, scale.zero
    height = _ROW * len(estimates) + 34 + (_REFERENCE if scale.reference else 0)
    with style_context():
        figure = new_figure(WIDTH, height)
        axes = figure.add_axes((14 / WIDTH, 30 / height, (WIDTH - 30) / WIDTH, _ROW * len(estimates) / height))
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        axes.set(ylim=(len(estimates), 0), yticks=[])
        for row, estimate in enumerate(estimates):
            if zero:  # a piece in each row, out of the way of the labels
                axes.plot([0, 0], [row + 0.52, row + 1], color=MUTED, linewidth=1)
            _draw_estimate(axes, row, estimate, looks[estimate.label])
        if scale.limits:
            axes.set_xlim(*scale.limits)
        if scale.reference:
            _draw_reference(axes, len(estimates), scale.reference, looks[scale.reference.label])
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:+g}" if zero and value else f"{value:g}")
        )
        shown = [*estimates, *([scale.reference] if scale.reference else [])]
        description = "; ".join(f"{estimate.label}: {estimate.text}" for estimate in shown)
        svg = to_svg(figure, key, title, f"{note} {description}.")
    rows = tuple((e.label, *[f"{100 * v:.2f}" for v in _ends(e.interval)]) for e in shown)
    return Panel(title=title, note=note, svg=svg, header=("method", "estimate", "low", "high"), rows=rows)


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.estimate, interval.low, interval.high


def _draw_reference(axes: Axes, rows: int, reference: Estimate, look: Look) -> None:
    """A mark at the estimate in each of the rows, or an arrow towards it where it is far beyond them."""
    value, (low, high) = 100 * reference.interval.estimate, axes.get_xlim()
    gid, words = titled(f"{reference.label}: {reference.text}"), f"{visible(reference.label)} {reference.text}"
    room = _NEAR * (high - low)
    if low - room <= value <= high + room:
        axes.set_xlim(min(low, value - 0.02 * (high - low)), max(high, value + 0.02 * (high - low)))
        low, high = axes.get_xlim()
        for row in range(rows):
            axes.plot([value, value], [row + 0.58, row + 0.9], color=look.placeholder, linewidth=1.6, gid=gid)
        words = f"| {words}"
    else:
        words = f"{words} →" if value > high else f"← {words}"
    place = min(1.0, max(0.0, (value - low) / (high - low)))
    side = "right" if place > 0.5 else "left"
    axes.annotate(words, (place, 1), (0, 5), "axes fraction", textcoords="offset points", ha=side, color=MUTED)


def _draw_estimate(axes: Axes, row: int, estimate: Estimate, look: Look) -> None:
    middle, low, high = (100 * value for value in _ends(estimate.interval))
    y = row + 0.74
    gid = titled(f"{estimate.label}: {estimate.text}")
    axes.plot([low, high], [y, y], color=look.placeholder, linewidth=2.4, gid=gid)
    axes.plot([middle], [y], color=look.placeholder, marker="o", markersize=6.5, gid=gid)
    words = visible(estimate.label)
    if len(words) > _LABEL_WIDTH:
        words = words[: _LABEL_WIDTH - 1] + "…"
    axes.annotate(words, (0, row + 0.46), xycoords=("axes fraction", "data"), va="bottom", weight="bold", color=INK)
    axes.annotate(
        estimate.text, (1, row + 0.46), xycoords=("axes fraction", "data"), va="bottom", ha="right", color=MUTED
    )


def shared_limits(groups: Sequence[Sequence[Estimate]]) -> tuple[float, float]:
    """Limits within which the intervals of all these plots, and 0, lie; in percent."""
    ends = [0.0, *(100 * value for group in groups for estimate in group for value in _ends(estimate.interval))]
    margin = 0.05 * (max(ends) - min(ends)) or 1.0
    return min(ends) - margin, max(ends) + margin


def draw_curves(key: str, metric: Metric, curves: Sequence[Curve], looks: Mapping[str, Look], axis: str) -> Panel:
    """A metric of several methods: the mean over seeds as a line, from the lowest to the highest seed as a band."""
    scale = 100 if metric.percent else 1
    with style_context():
        figure = new_figure(WIDTH, _CURVE_HEIGHT)
        axes = figure.add_axes(
            (48 / WIDTH, 40 / _CURVE_HEIGHT, (WIDTH - 62) / WIDTH, (_CURVE_HEIGHT - 50) / _CURVE_HEIGHT)
        )
        for curve in curves:
            look = looks[curve.label]
            marker = "o" if len(curve.x) <= _POINTS_WITH_MARKERS else ""
            if curve.seeds > 1:
                low, high = scale * curve.low, scale * curve.high
                axes.fill_between(curve.x, low, high, color=look.placeholder, alpha=0.16, linewidth=0)
            (line,) = axes.plot(curve.x, scale * curve.mean, color=look.placeholder, linestyle=look.dash)
            line.set(marker=marker, markersize=3.6, gid=titled(curve.label))
        axes.set_xlabel(AXES[axis])
        axes.margins(x=0.02, y=0.06)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=axis == "step"))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short_count(value)))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        svg = to_svg(figure, key, metric.title, _describe(metric, curves, scale))
    header, rows = _curve_table(curves, axis, scale)
    unit = "%" if metric.percent else ""
    return Panel(
        title=metric.title, note=", ".join(filter(None, (unit, metric.note))), svg=svg, header=header, rows=rows
    )


def _short_count(value: float) -> str:
    """`90`, `40k`, `1.5M`, `1.2e+11`."""
    if abs(value) < 10_000:
        return f"{value:g}"
    if abs(value) < 1e6:
        return f"{value / 1000:g}k"
    return f"{value / 1e6:g}M" if abs(value) < 1e9 else f"{value:.3g}"


def _describe(metric: Metric, curves: Sequence[Curve], scale: float) -> str:
    """The first and last values in words."""
    parts = [f"{c.label} from {format_value(scale * c.mean[0])} to {format_value(scale * c.mean[-1])}" for c in curves]
    return f"{metric.note or metric.title}, mean over seeds: {'; '.join(parts)}."


def _curve_table(
    curves: Sequence[Curve], axis: str, scale: float
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The drawn means, a row per point; where methods do not share their x, each has a column of its own for it."""
    points = max((len(curve.x) for curve in curves), default=0)
    shared = axis == "step" and all(np.array_equal(curve.x, curves[0].x) for curve in curves)
    what = "step" if axis == "step" else AXES[axis].partition(" of ")[0]
    header: list[str] = ["step"] if shared else []
    columns: list[list[str]] = []
    if shared:
        columns.append([f"{x:g}" for x in curves[0].x])
    for curve in curves:
        if not shared:
            header.append(f"{curve.label}: {what}")
            columns.append([f"{x:,.0f}" if x < 1e9 else f"{x:.4g}" for x in curve.x])
        header.append(curve.label)
        columns.append([format_value(scale * value) for value in curve.mean])
    padded = [column + [""] * (points - len(column)) for column in columns]
    return tuple(header), tuple(zip(*padded, strict=True))


def format_value(value: float) -> str:
    """Three or four significant digits, without a needless exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
