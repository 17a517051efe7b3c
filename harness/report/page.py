"""Puts the page together: everything that the template shows, computed before it is rendered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from harness.config.decodings import task_of
from harness.console.progress import MakeBar
from harness.report.curves import AXES
from harness.report.figures import curve_jobs, draw_group, score_group, verdict_figures
from harness.report.items import FLIP, build_items
from harness.report.source import Source, records_of
from harness.report.theme import Look, assign_looks
from harness.report.tokens import HEADER, KINDS, build_steps, busiest_step
from harness.results.escape import visible
from harness.results.render import build_sheets, describe, footnotes
from harness.results.verdicts import turns_sentence

FOLDER = Path(__file__).parent
_WINNER = re.compile(r" \((winner|wins: [^)]*)\)$")  # what follows a label in a table


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
    jobs = curve_jobs(source)
    context: dict[str, Any] = {}
    with make_bar("report", len(tasks) + len(columns) + sum(len(job.metrics) for job in jobs) + 2, "part") as bar:

        def done(value: Any) -> Any:
            bar.advance()
            return value

        context["verdicts"] = done(verdict_figures(source, looks))
        context["scores"] = [done(score_group(source, task, f"{n}-", looks)) for n, task in enumerate(tasks)]
        groups = [draw_group(f"curve-{number}", job, source, looks, done=done) for number, job in enumerate(jobs)]
        context["items"] = [done(build_items(source, column)) for column in columns]
        context["steps"] = done(build_steps(source.samples))
    context |= {
        "learning": [group for group in groups[: len(AXES)] if group.panels],
        "dynamics": [group for group in groups[len(AXES) :] if group.panels],
        "busiest": busiest_step(context["steps"]),
    }
    context |= _plain_context(source)
    return environment(looks).get_template("page.html.jinja").render(context)


def _plain_context(source: Source) -> dict[str, Any]:
    board = source.board
    sheets = build_sheets(board)
    names = dict.fromkeys(task.name for task in board.tasks)
    return {
        "board": board,
        "methods": source.methods,
        "summary": describe(board),
        "sheets": [sheet for sheet in sheets if sheet.part != "cost"],
        "costs": [sheet for sheet in sheets if sheet.part == "cost"],
        "turns": [turns for name in names if (turns := turns_sentence(board, name))],
        "footnotes": footnotes(board),
        "style": style(),
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


def style() -> Markup:
    """What every page's <style> holds."""
    return Markup((FOLDER / "style.css").read_text(encoding="utf-8"))


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


def environment(looks: Mapping[str, Look]) -> jinja2.Environment:
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
