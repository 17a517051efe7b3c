"""MMLU-Redux 2.0: from a local folder if one is given (metadata `data_dir` or $BENCHMARK_DATA), otherwise from the Hub.

Locally it is a folder `mmlu_redux` of one sheet per subject, as the authors keep them: some separate by semicolons, one
is in the encoding of old Macs, and the names of the errors are spelled in many ways.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from tasks.choice_answer import LETTERS
from tasks.data import DATA_VARIABLE, HubSource, as_splits, check_ids, data_folder, hub_rows

if TYPE_CHECKING:
    import datasets

HUB_ID = "edinburgh-dawg/mmlu-redux-2.0"
FOLDER = "mmlu_redux"
SUBJECTS = re.findall(
    r"\w+",
    "abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry "
    "college_computer_science college_mathematics college_medicine college_physics computer_security "
    "conceptual_physics econometrics electrical_engineering elementary_mathematics formal_logic global_facts "
    "high_school_biology high_school_chemistry high_school_computer_science high_school_european_history "
    "high_school_geography high_school_government_and_politics high_school_macroeconomics high_school_mathematics "
    "high_school_microeconomics high_school_physics high_school_psychology high_school_statistics "
    "high_school_us_history high_school_world_history human_aging human_sexuality international_law jurisprudence "
    "logical_fallacies machine_learning management marketing medical_genetics miscellaneous moral_disputes "
    "moral_scenarios nutrition philosophy prehistory professional_accounting professional_law professional_medicine "
    "professional_psychology public_relations security_studies sociology us_foreign_policy virology world_religions",
)


def load(data_dir: str | None = None, **_: Any) -> dict[str, datasets.Dataset]:
    """The 5,330 questions in which the annotators found no error; lm-eval passes the task's metadata."""
    return as_splits(test=[_document(row, row["answer"]) for row in _rows(data_dir) if row["error"] == "ok"])


def load_all(data_dir: str | None = None, **_: Any) -> dict[str, datasets.Dataset]:
    """All 5,700 questions, with the labels that the annotators corrected."""
    return as_splits(test=[_document(row, repaired_answer(row)) for row in _rows(data_dir)])


def repaired_answer(row: Mapping[str, str]) -> str:
    """The letters that count as correct.

    A wrong label is replaced, several correct options all count, and where none is correct any letter does: such a
    question says nothing about the model. Where the annotators gave no correction, and for every other error (an
    unclear question, an expert is needed), the original label stands.
    """
    if row["error"] == "no correct answer":
        return LETTERS
    if row["error"] in ("wrong groundtruth", "multiple correct answers"):
        return _letters(row["correction"]) or row["answer"]
    return row["answer"]


def _letters(correction: str) -> str:
    """ "2", "C", "0,1", "1 or 2", "(0, 1)" as letters; empty where the annotator wrote a sentence."""
    if not re.fullmatch(r"[\s(]*[0-3A-D](?:[\s,(]+(?:and|or)?\s*[0-3A-D])*[\s)]*", correction):
        return ""
    found = {LETTERS[int(mark)] if mark.isdigit() else mark for mark in re.findall(r"\b[0-3A-D]\b", correction)}
    return "".join(sorted(found))


def _document(row: Mapping[str, Any], answer: str) -> dict[str, Any]:
    return {"id": row["id"], "question": row["question"], "choices": row["choices"], "answer": answer}


def _rows(data_dir: str | None) -> list[dict[str, Any]]:
    """Every question, by subject and in the order of its sheet."""
    folder = data_folder(data_dir)
    raw = _hub_sheets() if folder is None else _local_sheets(folder / FOLDER)
    rows = [_row(subject, number, row) for subject, number, row in raw]
    check_ids((row["id"] for row in rows), FOLDER)
    return rows


def _hub_sheets() -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    for subject in SUBJECTS:
        wanted = f"{FOLDER}/mmlu_{subject}.csv"
        for number, row in enumerate(hub_rows("mmlu_redux", HubSource(HUB_ID, "test", config=subject), wanted)):
            yield subject, number, row


def _local_sheets(folder: Path) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    sheets = {path.stem.removeprefix("mmlu_"): path for path in sorted(folder.glob("*.csv"))}
    if missing := [subject for subject in SUBJECTS if subject not in sheets]:
        raise UserError(
            f"{folder} lacks mmlu_{missing[0]}.csv ({len(missing)} of {len(SUBJECTS)} sheets); evaluation.data_dir "
            f"(or ${DATA_VARIABLE}) must name the folder that contains {FOLDER}/mmlu_<subject>.csv."
        )
    for subject in SUBJECTS:
        for number, row in enumerate(read_sheet(sheets[subject])):
            yield subject, number, row


def read_sheet(path: Path) -> list[dict[str, str]]:
    """The rows of one sheet, whatever it separates its columns by and however it is encoded."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("mac_roman")
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    return [{key: value or "" for key, value in row.items() if key} for row in _reader(text, separator)]


def _reader(text: str, separator: str) -> Iterator[dict[str, str]]:
    for row in csv.DictReader(io.StringIO(text, newline=""), delimiter=separator):
        row.pop(None, None)  # cells beyond the header
        yield row


def _row(subject: str, number: int, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Columns as the tasks use them. The Hub has lists and integers where a sheet has text."""
    try:
        choices = raw["choices"]
        choices = ast.literal_eval(choices) if isinstance(choices, str) else list(choices)
        if len(choices) != len(LETTERS):
            raise ValueError(f"{len(choices)} options")
        question = str(raw["question"])
        return {
            "id": f"{subject}/{number:02d}-{hashlib.sha256(question.encode()).hexdigest()[:6]}",
            "question": question,
            "choices": [str(choice) for choice in choices],
            "answer": LETTERS[int(raw["answer"])],
            "error": str(raw["error_type"]).strip().lower().replace("_", " "),
            "correction": str(raw.get("correct_answer") or "").strip(),
        }
    except (KeyError, ValueError, SyntaxError, IndexError, TypeError) as error:
        raise UserError(f"{FOLDER}, sheet {subject}, row {number + 1} is not a question: {error!r}.") from error
