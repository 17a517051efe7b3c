"""The data of GPQA Diamond and MMLU-Redux: layouts, orders of options, labels."""

import csv
import importlib.util
import os
from collections import Counter
from pathlib import Path

import pytest

from harness.errors import UserError
from tasks.choice_prompt import prompt

TASKS = Path(__file__).parents[2] / "tasks"
DATA = os.environ.get("BENCHMARK_DATA")
QUESTIONS = [
    ("What is the SI unit of force?", "newton", "joule", "watt", "pascal"),
    ("How many legs has an ant, one more than a quintuped?", "6", "8", "4", "10"),
    ("Which planet is nearest the Sun?", "Mercury", "Venus", "Mars", "Earth"),
]
COLUMNS = ["Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3", "Record ID"]


def module(name: str):
    """The task's data.py, loaded by its path as lm-eval does."""
    spec = importlib.util.spec_from_file_location(f"data_of_{name}", TASKS / name / "data.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


gpqa, mmlu = module("gpqa_diamond"), module("mmlu_redux")


@pytest.fixture
def gpqa_folder(tmp_path):
    (tmp_path / "gpqa_diamond").mkdir()
    with (tmp_path / "gpqa_diamond" / "gpqa_diamond.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *([*row, f"rec{i}"] for i, row in enumerate(QUESTIONS))])
    return tmp_path


def test_a_document_for_every_question_and_repeat(gpqa_folder):
    docs = gpqa.load(data_dir=str(gpqa_folder), version=1.0)["test"]
    assert [(doc["id"], doc["repeat"]) for doc in docs] == [(f"rec{i}", r) for i in range(3) for r in range(4)]
    for doc in docs:
        question, correct, *_ = QUESTIONS[int(doc["id"][-1])]
        assert doc["choices"]["ABCD".index(doc["answer"])] == correct == doc["choices"][doc["order"].index(0)]
        assert prompt(doc).endswith(f"{question}\n\n" + "\n".join(map("{}) {}".format, "ABCD", doc["choices"])))
    assert len(gpqa.load(data_dir=str(gpqa_folder), repeat_documents=10)["test"]) == 30


def test_the_order_of_the_options_is_a_pure_function_of_question_and_repeat():
    assert gpqa.option_order("What is the SI unit of force?", 0) == (0, 3, 2, 1)  # pinned: a change is another protocol
    assert len({gpqa.option_order("q", repeat) for repeat in range(24)}) == 24
    orders = Counter(gpqa.option_order(f"question {i}", 0).index(0) for i in range(2000))
    assert all(abs(count - 500) < 80 for count in orders.values())  # 4 standard deviations of a fair choice


def test_missing_gpqa_is_one_sentence_that_says_where_the_licence_is(tmp_path, monkeypatch):
    with pytest.raises(
        UserError, match=r"gpqa_diamond.csv does not exist; .*https://huggingface.co/datasets/Idavidrein"
    ):
        gpqa.load(data_dir=str(tmp_path))
    monkeypatch.delenv("BENCHMARK_DATA", raising=False)
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: (_ for _ in ()).throw(OSError("401\nGatedRepo")))
    with pytest.raises(
        UserError, match=r"401 GatedRepo\); accept the licence at .*Idavidrein/gpqa.*evaluation.data_dir"
    ) as e:
        gpqa.load()
    assert "\n" not in str(e.value)


def test_a_broken_gpqa_sheet_is_named(gpqa_folder):
    path = gpqa_folder / "gpqa_diamond" / "gpqa_diamond.csv"
    path.write_text(path.read_text().replace("newton", ""))
    with pytest.raises(UserError, match=r"row 1: the column 'Correct Answer' is missing or empty"):
        gpqa.load(data_dir=str(gpqa_folder))


def test_sheets_of_any_separator_and_encoding(tmp_path):
    header = "question,choices,answer,error_type,source,correct_answer,potential_reason"
    row = "What’s it, then?;\"['a;b', 'c', 'd', 'e']\";1;OK ;s;;"
    (tmp_path / "a.csv").write_text(header.replace(",", ";") + "\n" + row, encoding="mac_roman")
    (tmp_path / "b.csv").write_text(
        header + ",\n\"x, y?\",\"['a', 'b', 'c', 'd']\",0,Wrong_Groundtruth,s,2,,", encoding="utf-8-sig"
    )
    (first,), (second,) = mmlu.read_sheet(tmp_path / "a.csv"), mmlu.read_sheet(tmp_path / "b.csv")
    question = mmlu._row("a", 0, first)
    assert question["question"] == "What’s it, then?" and question["choices"] == ["a;b", "c", "d", "e"]
    assert (question["answer"], question["error"]) == ("B", "ok")
    assert mmlu.repaired_answer(mmlu._row("b", 0, second)) == "C"
    with pytest.raises(UserError, match="sheet b, row 8 is not a question"):
        mmlu._row("b", 7, {**second, "answer": "7"})


@pytest.mark.parametrize(
    ("error", "correction", "accepted"),
    [
        ("ok", "", "B"),
        ("wrong groundtruth", "2", "C"),
        ("wrong groundtruth", "C", "C"),
        ("wrong groundtruth", "", "B"),
        ("multiple correct answers", "(0, 1)", "AB"),
        ("multiple correct answers", "2 and 3", "CD"),
        ("multiple correct answers", "0 1 3", "ABD"),
        ("multiple correct answers", "B,D", "BD"),
        ("multiple correct answers", "depends on interpretation", "B"),
        ("no correct answer", "6", "ABCD"),
        ("bad question clarity", "0", "B"),
        ("expert", "", "B"),
    ],
)
def test_repaired_labels(error, correction, accepted):
    assert mmlu.repaired_answer({"error": error, "correction": correction, "answer": "B"}) == accepted


def test_missing_sheets_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"lacks mmlu_abstract_algebra.csv \(57 of 57 sheets\); evaluation.data_dir"):
        mmlu.load(data_dir=str(tmp_path))


@pytest.mark.skipif(DATA is None, reason="BENCHMARK_DATA does not name a folder with mmlu_redux/")
def test_the_real_sheets():
    clean, everything = mmlu.load(data_dir=DATA)["test"], mmlu.load_all(data_dir=DATA)["test"]
    assert (len(clean), len(everything)) == (5330, 5700)
    assert Counter(map(len, everything["answer"]))[4] == 36  # questions in which no option is correct
    assert not any("\x8e" in text or "Õ" in text for text in clean["question"])


@pytest.mark.skipif(DATA is None, reason="BENCHMARK_DATA does not name a folder with fixtures/")
def test_the_synthetic_rows_in_the_layout_of_gpqa_load(tmp_path):
    (tmp_path / "gpqa_diamond").mkdir()
    content = (Path(str(DATA)) / "fixtures" / "gpqa_format_synthetic.csv").read_bytes()
    (tmp_path / "gpqa_diamond" / "test.csv").write_bytes(content)
    docs = gpqa.load(data_dir=str(tmp_path))["test"]
    assert len(docs) == 24 and len(set(docs["id"])) == 6
