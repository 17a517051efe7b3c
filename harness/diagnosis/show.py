"""A diagnosis as Markdown (the terminal's too) and as a page in the report's style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from harness.files import ROOT
from harness.results.markdown import table

NOTHING = "–"
PAIR = {  # name -> what it is called, how it is written, what it says
    "reverse_kl": ("reverse KL", "{:.3f}", "KL(student ‖ teacher), exact, nats a token: what all of this shall lower"),
    "forward_kl": ("forward KL", "{:.3f}", "KL(teacher ‖ student) on the student's tokens, nats a token"),
    "k1": ("K1", "{:.3f}", "the reverse KL as on-policy distillation estimates it, from the sampled token alone"),
    "k1_deviation": (
        "K1's deviation",
        "{:.2f}",
        "of one token's K1 from the exact value there: the noise of an estimate",
    ),
    "acceptance": ("acceptance", "{:.1%}", "of a draw by min(π_T/π_S, 1): TrOPD trusts so many tokens"),
    "hard_outliers": (
        "hard outliers",
        "{:.2%}",
        "tokens to which the teacher gives less than e⁻⁵ of the student's probability",
    ),
    "student_entropy": ("student's entropy", "{:.2f}", "nats a token"),
    "teacher_entropy": ("teacher's entropy", "{:.2f}", "nats a token"),
    "teacher_topk_mass": ("teacher's mass in its top k", "{:.2%}", "what a divergence on the top k can see"),
    "student_topk_mass": ("student's mass there", "{:.2%}", "on the teacher's top k"),
    "truncated": ("cut at the limit", "{:.0%}", "of the completions"),
    "with_hard_outlier": ("with a hard outlier", "{:.0%}", "of the completions"),
    "first_hard_outlier": ("first hard outlier", "{:.0f}", "position of the first one in a completion, median"),
    "mean_length": ("length", "{:.0f}", "tokens a completion"),
}
BY_POSITION = (
    "tokens",
    "acceptance",
    "hard_outliers",
    "reverse_kl",
    "forward_kl",
    "student_entropy",
    "teacher_entropy",
)
READING = (
    "On the same completions, at the beginning of training. *Norm*: of a batch's gradient. *Signal to noise*: of one "
    "batch, the expected gradient over the deviation from it; below 1 a step is mostly noise. *Cosine*: of the mean "
    "gradient with that of the exact reverse KL and of the forward KL over the whole vocabulary; a low one with both "
    "is another objective, not a worse one. *Worst 1 %*: how much of the gradient at the last states comes from the "
    "tokens that the teacher likes least."
)


@dataclass(frozen=True)
class Table:
    """A heading, a sentence and a table."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str = "lr"


def tables(diagnosis: Mapping[str, Any]) -> list[Table]:
    """All tables of a diagnosis."""
    pair = diagnosis["pair"]
    count = f"{pair['completions']} completions, {pair['tokens']:,.0f} tokens of the student."
    numbers = [(title, _number(form, pair[key]), note) for key, (title, form, note) in PAIR.items()]
    by_position = [
        (row["positions"], *(_number(_form(key), row[key]) for key in BY_POSITION)) for row in pair["by_position"]
    ]
    header = ("position", "tokens", *(PAIR[key][0] for key in BY_POSITION[1:]))
    stops = [
        (who, *(_number("{:.3g}", pair["stops"][f"{who}_{place}"]) for place in ("at_end", "elsewhere")))
        for who in ("student", "teacher")
    ]
    return [
        Table("Pair", count, ("", "", "what it is"), numbers, align="lrl"),
        Table("Positions", "Of a token in its completion, from 1.", header, by_position),
        Table("Ends", "Mean probability of any end token.", ("", "where the student ended", "elsewhere"), stops),
        Table("Gradients", READING, _gradient_header(), list(map(_gradient_row, diagnosis["gradients"].items()))),
        _cosines_by_group(diagnosis),
    ]


def _gradient_header() -> tuple[str, ...]:
    return ("method", "norm", "signal to noise", "cosine, reverse KL", "cosine, forward KL", "worst 1 %")


def _gradient_row(item: tuple[str, Mapping[str, Any]]) -> tuple[str, ...]:
    name, row = item
    cosines = (f"{row[f'cosine_{which}']['all']:+.2f}" for which in ("reverse", "forward"))
    return (name, f"{row['norm']:.3g}", f"{row['signal_to_noise']:.2f}", *cosines, f"{row['worst_share']:.0%}")


def _cosines_by_group(diagnosis: Mapping[str, Any]) -> Table:
    groups = diagnosis["groups"]
    rows = [
        (name, *(f"{row['cosine_reverse'][group]:+.2f}" for group in groups))
        for name, row in diagnosis["gradients"].items()
    ]
    note = "Cosine with the exact reverse KL's gradient, by the parameters that it is of."
    return Table("Parameters", note, ("method", *groups), rows)


def _form(key: str) -> str:
    return PAIR[key][1] if key in PAIR else "{:,.0f}"


def _number(form: str, value: float | None) -> str:
    return NOTHING if value is None else form.format(value)


def as_markdown(diagnosis: Mapping[str, Any], command: str) -> str:
    """The whole diagnosis."""
    parts = [f"# {diagnosis['setting']}: {diagnosis['student']} ← {diagnosis['teacher']}", f"Made by `{command}`."]
    for part in tables(diagnosis):
        parts += [f"## {part.title}", part.note, table(part.header, part.rows, part.align)]
    for title, key in (("What it points to", "pointers"), ("Warnings", "warnings")):
        if diagnosis[key]:
            parts += [f"## {title}", "\n".join(f"- {line}" for line in diagnosis[key])]
    parts += ["## Ends and template", diagnosis["ends"], f"```\n{diagnosis['preview']}\n```"]
    return "\n\n".join(parts) + "\n"


def as_page(diagnosis: Mapping[str, Any], command: str) -> str:
    """One self-contained HTML page."""
    style = (ROOT / "harness" / "report" / "style.css").read_text(encoding="utf-8")
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.get_template("page.html.jinja")
    return template.render(d=diagnosis, tables=tables(diagnosis), style=Markup(style), command=command)
