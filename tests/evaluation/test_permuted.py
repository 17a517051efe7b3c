"""Tasks that make a document of every repeat (GPQA): rows are kept by question, and texts of gated sets are kept to
oneself.
"""

import csv

import pytest

from tests.evaluation.scoring import protocol_hashes, scored
from tests.scripted import ScriptedEngine

COLUMNS = ["Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3", "Record ID"]
ROWS = [("Unit of force?", "newton", "joule", "watt", "pascal"), ("Legs of an ant?", "6", "8", "4", "10")]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "gpqa_diamond").mkdir()
    with (tmp_path / "gpqa_diamond" / "gpqa_diamond.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *([*row, f"rec{i}"] for i, row in enumerate(ROWS))])
    return str(tmp_path)


class Student:
    """Knows which option it wants, finds its letter in the prompt, and answers with that."""

    def __init__(self, tokenizer, wanted) -> None:
        self.tokenizer, self.wanted, self.prompts = tokenizer, wanted, {}

    def __call__(self, request) -> str:
        prompt = self.tokenizer.decode(request.prompt_ids)
        self.prompts[request.prompt_id, request.sample_index] = prompt
        option = self.wanted(request.prompt_id, request.sample_index)
        letter = next((line[0] for line in prompt.splitlines() if line[1:].split("<")[0] == f") {option}"), None)
        question = prompt.partition("answering.\n\n")[2].partition("\n")[0]
        return f"{question} Answer: {letter}" if letter else "no idea"


def run(tokenizer, folder, wanted, **kwargs):
    student = Student(tokenizer, wanted)
    engine = ScriptedEngine(student, tokenizer)
    settings = {"run_seed": 0, "max_length": 4096, "data_dir": folder, **kwargs}
    (result,) = scored(engine, tokenizer, ["gpqa_diamond"], **settings)
    return result, student, engine


def test_repeats_have_prompts_of_their_own_and_rows_by_question(tokenizer, folder):
    right = {"gpqa_diamond/rec0": "newton", "gpqa_diamond/rec1": "6"}
    result, student, engine = run(tokenizer, folder, lambda item, repeat: right[item])
    row = result.evaluation
    assert (row.score, row.problems, row.samples, row.correct) == (1.0, 2, 4, (4, 4))
    assert [(i.item_id, i.repeat) for i in result.items] == [(f"rec{q}", r) for q in range(2) for r in range(4)]
    assert len(set(student.prompts.values())) == 8 and len({request.seed for request in engine.requests}) == 8
    scores = {"avg_at_k": 1, "pass_at_k": 1, "maj_at_k": 1, "correct": 8, "extracted": 1, "votes": 1}
    graders = {"strict_score": 1, "official_score": 1, "graders_differ": 0, "official_grader": 0}
    assert result.metrics == scores | graders


def test_a_majority_is_one_of_options_and_not_of_letters(tokenizer, folder):
    """Question 0: twice right, once wrong, once nothing. Question 1: once right, thrice the same wrong option."""
    wants = {"rec0": ["newton", "watt", None, "newton"], "rec1": ["6", "8", "8", "8"]}
    result, *_ = run(tokenizer, folder, lambda item, repeat: wants[item.split("/")[1]][repeat])
    assert result.evaluation.correct == (2, 1)
    assert (result.metrics["avg_at_k"], result.metrics["pass_at_k"], result.metrics["maj_at_k"]) == (3 / 8, 1.0, 0.5)
    assert result.metrics["extracted"] == 7 / 8


def test_samples_and_limit_count_questions(tokenizer, folder):
    result, *_ = run(tokenizer, folder, lambda item, repeat: "newton", samples=10, limit=1)
    assert (result.evaluation.problems, result.evaluation.samples, len(result.items)) == (1, 10, 10)
    hashes = [
        protocol_hashes(["gpqa_diamond"], tokenizer, data_dir=folder, **kwargs)["gpqa_diamond"]
        for kwargs in ({}, {"samples": 4}, {"samples": 10}, {"limit": 1}, {"samples": 10, "limit": 1})
    ]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 4 and hashes[4] == result.evaluation.protocol_hash


def test_texts_of_a_gated_set_are_given_only_when_asked_for(tokenizer, folder):
    result, *_ = run(tokenizer, folder, lambda item, repeat: "newton")
    assert {text["text"] for text in result.texts} == {None}
    assert all("Unit of" not in str(part) for part in (result.texts, result.items, result.evaluation))
    assert result.texts[0]["extracted"] in "ABCD" and result.texts[0]["item_id"] == "rec0"
    result, *_ = run(tokenizer, folder, lambda item, repeat: "newton", keep_private_texts=True)
    assert "Unit of force?" in result.texts[0]["text"]
