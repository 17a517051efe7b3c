"""GPQA Diamond: from a local folder if one is given (metadata `data_dir` or $BENCHMARK_DATA), otherwise from the Hub.

The set is gated, and its authors ask that its questions are not shown in plain text: ids and verdicts are all that is
written down (metadata `gated` in the task file). Locally it is `gpqa_diamond/gpqa_diamond.csv`, the file as published.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from tasks.choice_answer import LETTERS
from tasks.data import HubSource, as_splits, check_ids, data_file, data_folder, hub_rows

if TYPE_CHECKING:
    import datasets

HUB = HubSource("Idavidrein/gpqa", "train", config="gpqa_diamond", gated=True)
FILES = ("gpqa_diamond/gpqa_diamond.csv", "gpqa_diamond/test.csv")
OPTIONS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
ORDERS = tuple(itertools.permutations(range(len(OPTIONS))))


def load(data_dir: str | None = None, repeat_documents: int = 4, **_: Any) -> dict[str, datasets.Dataset]:
    """One document per question and repeat, the repeats of a question side by side.

    lm-eval draws its repeats from one and the same prompt, but here every repeat has its options in another order.
    """
    folder = data_folder(data_dir)
    if folder is None:
        source, raw = HUB.id, hub_rows("gpqa_diamond", HUB, FILES[0])
    else:
        try:
            path = data_file(folder, *FILES)
        except UserError as error:
            raise UserError(
                f"{error} GPQA is gated: accept its licence at https://huggingface.co/datasets/{HUB.id} to get the "
                "file."
            ) from error
        source, raw = str(path), read_csv(path)
    questions = [_question(row, number, source) for number, row in enumerate(raw, start=1)]
    check_ids((question["id"] for question in questions), source)
    return as_splits(test=[_document(question, repeat) for question in questions for repeat in range(repeat_documents)])


def read_csv(path: Path) -> list[Mapping[str, str]]:
    """The rows of a sheet with a header."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def option_order(question: str, repeat: int) -> tuple[int, ...]:
    """Which option stands at A, B, C and D: a pure function of the question's text and the repeat.

    The repeats of a question go through its 24 orders in an order of their own, so that no two of the first 24 agree.
    """
    ranked = sorted(ORDERS, key=lambda order: hashlib.sha256(f"{order}\n{question}".encode()).digest())
    return ranked[repeat % len(ranked)]


def _question(row: Mapping[str, Any], number: int, source: str) -> dict[str, Any]:
    """Text, id and the options with the correct one first."""
    if missing := [column for column in ("Question", *OPTIONS) if not str(row.get(column) or "").strip()]:
        raise UserError(f"{source}, row {number}: the column {missing[0]!r} is missing or empty.")
    text = str(row["Question"]).strip()
    item = str(row.get("Record ID") or hashlib.sha256(text.encode()).hexdigest()[:12])
    return {"id": item, "question": text, "options": [str(row[column]).strip() for column in OPTIONS]}


def _document(question: Mapping[str, Any], repeat: int) -> dict[str, Any]:
    order = option_order(question["question"], repeat)
    return {
        "id": question["id"],
        "repeat": repeat,
        "question": question["question"],
        "choices": [question["options"][option] for option in order],
        "order": list(order),
        "answer": LETTERS[order.index(0)],
    }
