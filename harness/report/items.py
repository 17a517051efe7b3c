"""Which problems flip between methods, and the texts that were sampled there. Suffixes: L labels, I problems."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from harness.report.source import Source
from harness.results.collect import FoundRun
from harness.results.columns import title_of
from harness.results.record import ITEMS_FILE, ROW_FILES, TEXTS_FILE, Evaluation, way_out
from harness.results.schema import checked_rows

SHOWN_PROBLEMS = 24  # of all tasks together, those whose score differs most between methods
_FEWEST_PROBLEMS = 8  # of each task
LISTED_PROBLEMS = 600  # a task with more has no table of all problems
_TEXTS = 600_000  # characters of all texts of the page
_LONGEST, _SHORTEST = (
    1200,
    300,
)  # characters kept of a long text, fewer where there are many: three quarters from its beginning
_FULL = (24, 148, 100)  # --solved, for light and dark: the colour of a solved problem; an unsolved one is transparent
FLIP = 0.5  # difference in the share of solved samples that counts as a flip


@dataclass(frozen=True)
class Sampled:
    """One sampled answer."""

    repeat: int
    text: str | None  # None: private, or not there
    is_private: bool
    extracted: str
    correct: bool | None
    left_out: int  # characters


@dataclass(frozen=True)
class Cell:
    """A label on a problem."""

    label: str
    solved: int  # of `total` samples, over seeds
    total: int
    sampled: Sampled | None


@dataclass(frozen=True)
class Problem:
    """A row of the heat map."""

    name: str
    spread: float  # highest less lowest share of solved samples among the methods
    cells: tuple[Cell, ...]
    question: str | None  # None: private, or of a run that did not keep it
    reference: str | None


@dataclass(frozen=True)
class Strip:
    """All problems of a task for one label, an image one pixel high."""

    label: str
    image: str  # data URI
    mean: float  # in [0, 1]


@dataclass(frozen=True)
class TaskItems:
    """A column's part of the page."""

    title: str
    problems: int
    strips: tuple[Strip, ...]
    flips: int  # problems whose spread is at least FLIP
    shown: tuple[Problem, ...]
    has_texts: bool
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # of all problems; empty if there are more than LISTED_PROBLEMS


def build_items(source: Source, column: str) -> TaskItems:
    """Reads a column's success counts, and the sampled texts of the problems that are shown."""
    runs = source.evaluations[column]
    labels = [label for label in source.labels if label in runs]
    shares = np.array([np.divide(*_counts(runs[label])) for label in labels])  # [L, I]
    compared = [row for row, label in enumerate(labels) if label in source.methods] or list(range(len(labels)))
    spread = shares[compared].max(0) - shares[compared].min(0)
    difficulty = np.argsort(-shares[compared].mean(0), kind="stable")
    limit = max(_FEWEST_PROBLEMS, SHOWN_PROBLEMS // len(source.evaluations))
    chosen = [int(i) for i in np.argsort(-spread, kind="stable")[:limit] if spread[i] > 0]
    names = _item_names(source, column, labels, shares.shape[1])
    kept = _TEXTS // max(1, len(source.evaluations) * len(labels) * len(chosen))
    kept = max(_SHORTEST, min(_LONGEST, kept))
    sampled = {label: _read_sampled(source, column, label, [names[i] for i in chosen], kept=kept) for label in labels}
    counts = {label: _counts(runs[label]) for label in labels}

    def cell(label: str, problem: int) -> Cell:
        solved, total = counts[label]
        return Cell(label, int(solved[problem]), total, sampled[label].get(names[problem]))

    asked = _read_questions(source, column, {names[i] for i in chosen})
    nothing = (None, None)
    shown = [
        Problem(names[i], float(spread[i]), tuple(cell(label, i) for label in labels), *asked.get(names[i], nothing))
        for i in chosen
    ]
    rows = [
        (names[i], *(f"{counts[label][0][i]}/{counts[label][1]}" for label in labels))
        for i in (range(shares.shape[1]) if shares.shape[1] <= LISTED_PROBLEMS else ())
    ]
    return TaskItems(
        title=title_of(column),
        problems=shares.shape[1],
        strips=tuple(_strip(label, shares[row][difficulty]) for row, label in enumerate(labels)),
        flips=int((spread >= FLIP).sum()),
        shown=tuple(shown),
        has_texts=any(cell.sampled for problem in shown for cell in problem.cells),
        header=("problem", *labels),
        rows=tuple(rows),
    )


def _counts(by_seed: Mapping[int, Any]) -> tuple[NDArray[np.int64], int]:
    """Successes per problem over the seeds [I], and the number of samples of each problem."""
    evaluations = list(by_seed.values())
    return np.sum([evaluation.correct for evaluation in evaluations], axis=0), sum(e.samples for e in evaluations)


def _strip(label: str, shares: NDArray[np.float64]) -> Strip:
    pixels = np.empty((1, len(shares), 4), dtype=np.uint8)
    pixels[..., :3] = _FULL
    pixels[..., 3] = np.round(255 * shares)
    png = io.BytesIO()
    imsave(png, pixels, format="png")
    return Strip(label, f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}", float(shares.mean()))


def _item_names(source: Source, column: str, labels: Sequence[str], problems: int) -> list[str]:
    """The task's own ids in the order of its problems; numbers where no run folder tells them."""
    for label in labels:
        run = source.first_run(label, column)
        if run is not None and run.folder is not None:
            evaluation = _evaluation(run, source, column)
            names = dict.fromkeys(row["item_id"] for row in _rows(run, ITEMS_FILE, evaluation))
            if len(names) == problems:
                return list(names)
    return [f"problem {number}" for number in range(1, problems + 1)]


def _evaluation(run: FoundRun, source: Source, column: str) -> Evaluation:
    return source.evaluations[column][run.record.label][run.record.seed]


def _rows(run: FoundRun, name: str, evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    assert run.folder is not None
    key = (evaluation.task, evaluation.protocol_hash)
    path = run.folder / name
    rows = checked_rows(path, ROW_FILES[name], torn_last_line="refuse", way_out=way_out(path))
    return (row for _, row in rows if (row["task"], row["protocol_hash"]) == key)


def _read_sampled(source: Source, column: str, label: str, names: Sequence[str], kept: int) -> dict[str, Sampled]:
    """The first sample of each of these problems, by the label's run on its lowest seed."""
    run = source.first_run(label, column)
    if run is None or not names:
        return {}
    evaluation, wanted = _evaluation(run, source, column), set(names)
    correct = {
        (row["item_id"], row["repeat"]): bool(row["correct"])
        for row in _rows(run, ITEMS_FILE, evaluation)
        if row["item_id"] in wanted
    }
    found: dict[str, Sampled] = {}
    for row in _rows(run, TEXTS_FILE, evaluation):
        name = row["item_id"]
        if name in wanted and name not in found:
            found[name] = _sampled(row, correct.get((name, row["repeat"])), kept)
    return found


def _read_questions(source: Source, column: str, names: set[str]) -> dict[str, tuple[str, str | None]]:
    """What was asked, and the task's answer, by the first run that kept it."""
    for label in source.evaluations[column]:
        run = source.first_run(label, column)
        rows = _rows(run, TEXTS_FILE, _evaluation(run, source, column)) if run is not None else iter(())
        found = {
            row["item_id"]: (_cut(row["problem"], _LONGEST)[0], row.get("reference"))
            for row in rows
            if row["item_id"] in names and row.get("problem")
        }
        if found:
            return found
    return {}


def _cut(text: str, kept: int) -> tuple[str, int]:
    """The text, of a long one its beginning and its end, and how many characters were left out."""
    left_out = max(0, len(text) - kept)
    return (f"{text[: kept - kept // 4]} […] {text[-(kept // 4) :]}" if left_out else text), left_out


def _sampled(row: Mapping[str, Any], correct: bool | None, kept: int) -> Sampled:
    text = row.get("text")
    if not isinstance(text, str):  # the driver keeps no text of gated and private sets; its answer stays away too
        return Sampled(repeat=row["repeat"], text=None, is_private=True, extracted="", correct=correct, left_out=0)
    shown, left_out = _cut(text, kept)
    extracted = row.get("extracted")
    answer = "" if extracted is None else str(extracted)[:200]
    return Sampled(
        repeat=row["repeat"],
        text=shown,
        is_private=False,
        extracted=answer,
        correct=correct,
        left_out=left_out,
    )
