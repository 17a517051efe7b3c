"""Several comparisons on one page: what holds where, then each comparison in short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.config.decodings import task_of
from harness.console.progress import MakeBar
from harness.report.curves import AXES
from harness.report.figures import FigureGroup, Verdict, curve_jobs, draw_group, score_group, verdict_figures
from harness.report.heat import heat_maps, names_of
from harness.report.page import environment, style
from harness.report.source import Source
from harness.report.theme import Look, assign_looks
from harness.results.leaderboard import BASELINE
from harness.results.render import Sheet, build_sheets, describe

MOST_OPEN = 4  # comparisons; more are folded


@dataclass(frozen=True)
class Comparison:
    """One folder's part of the page."""

    name: str
    anchor: str
    setting: str
    verdicts: list[Verdict]
    sheets: list[Sheet]
    scores: list[FigureGroup]
    learning: list[FigureGroup]
    summary: str
    command: str  # that makes its own page


def render_several(sources: Sequence[Source], command: str, make_bar: MakeBar) -> str:
    """The page of several folders; the same folders in the same order give the same text."""
    looks = assign_looks([label for source in sources for label in source.labels])
    with make_bar("report", len(sources) + 1, "comparison") as bar:
        maps, is_regime_map = heat_maps(sources)
        bar.advance()
        comparisons = []
        for number, (name, source) in enumerate(zip(names_of(sources), sources, strict=True)):
            comparisons.append(_comparison(source, name, f"c{number}", looks))
            bar.advance()
    context = {
        "comparisons": comparisons,
        "maps": maps,
        "is_regime_map": is_regime_map,
        "most_open": MOST_OPEN,
        "baseline": BASELINE,
        "command": command,
        "style": style(),
    }
    return environment(looks).get_template("several.html.jinja").render(context)


def _comparison(source: Source, name: str, anchor: str, looks: Mapping[str, Look]) -> Comparison:
    tasks = list(dict.fromkeys(map(task_of, source.evaluations)))
    jobs = curve_jobs(source)[: len(AXES)]
    learning = [
        draw_group(f"{anchor}-curve-{n}", job, source, looks, done=lambda _: None) for n, job in enumerate(jobs)
    ]
    return Comparison(
        name=name,
        anchor=anchor,
        setting=source.board.setting,
        verdicts=verdict_figures(source, looks, f"{anchor}-"),
        sheets=[sheet for sheet in build_sheets(source.board) if sheet.part == "main"],
        scores=[score_group(source, task, f"{anchor}-{n}-", looks) for n, task in enumerate(tasks)],
        learning=[group for group in learning if group.panels],
        summary=describe(source.board),
        command=source.board.command,
    )
