"""The benchmarks end to end on a scripted model: denominators, all-correct responses, totals. Real data where given."""

import json
import os
from pathlib import Path

import pytest
import yaml

from harness.evaluation.loading import TASKS_DIR
from tests.evaluation.scoring import scored
from tests.scripted import ScriptedEngine

DATA, PARITY = os.environ.get("BENCHMARK_DATA"), os.environ.get("PARITY_DATA")
PROTOCOLS = Path(__file__).parents[2] / "conf" / "evaluation"
needs_data = pytest.mark.skipif(DATA is None, reason="BENCHMARK_DATA does not name a folder with the real sets")


def documents(task: str, tokenizer):
    from harness.evaluation.loading import TaskOptions, load_tasks

    return list(load_tasks([task], tokenizer, TaskOptions(data_dir=DATA))[task].task.eval_docs)


@needs_data
@pytest.mark.parametrize(
    ("task", "problems", "samples"),
    [
        ("aime24", 30, 32),
        ("aime25", 30, 32),
        ("aime26", 30, 32),
        ("amc23", 40, 32),
        ("math500", 500, 4),
        ("gsm8k", 1319, 1),
    ],
)
def test_all_correct_responses_give_100_on_each_math_set(tokenizer, task, problems, samples):
    """The gold answers, written as a model would: AIME without leading zeros. 30 x 32 = 960 and 40 x 32 = 1280."""
    golds = {f"{task}/{doc['id']}": doc["answer"] for doc in documents(task, tokenizer)}

    def answer(request) -> str:
        gold = golds[request.prompt_id]
        return (
            f"<think>\\boxed{{0}}?</think>It is $\\boxed{{{gold.lstrip('0') or '0' if task == 'aime24' else gold}}}$."
        )

    settings = {"run_seed": 0, "max_length": 16384, "data_dir": DATA}
    (result,) = scored(ScriptedEngine(answer, tokenizer), tokenizer, [task], **settings)
    row = result.evaluation
    assert (row.problems, row.samples, len(result.items)) == (problems, samples, problems * samples)
    assert row.score == 1.0 and set(row.correct) == {samples}
    assert result.metrics["maj_at_k"] == 1.0


@needs_data
def test_all_correct_letters_give_100_on_mmlu_redux(tokenizer):
    golds = {f"mmlu_redux/{doc['id']}": doc["answer"] for doc in documents("mmlu_redux", tokenizer)}
    engine = ScriptedEngine(lambda request: f"Answer: {golds[request.prompt_id]}", tokenizer)
    settings = {"run_seed": 0, "max_length": 65536, "data_dir": DATA}
    (result,) = scored(engine, tokenizer, ["mmlu_redux"], **settings)
    assert result.evaluation.score == 1.0 and result.evaluation.problems == 5330


@pytest.mark.skipif(DATA is None or PARITY is None, reason="BENCHMARK_DATA and PARITY_DATA do not name folders")
def test_stored_responses_to_ifbench_give_the_official_total(tokenizer):
    """146 of the 294 prompts have an official verdict; the others get an empty response, which follows nothing."""
    stored = [json.loads(line) for line in (Path(str(PARITY)) / "ifbench_parity_sample_output.jsonl").open()]
    responses = {f"ifbench/{row['key']}": row["response"] for row in stored}
    engine = ScriptedEngine(lambda request: responses.get(request.prompt_id, ""), tokenizer)
    settings = {"run_seed": 0, "max_length": 65536, "data_dir": DATA}
    (result,) = scored(engine, tokenizer, ["ifbench"], **settings)
    assert (result.evaluation.problems, sum(result.evaluation.correct)) == (
        294,
        sum(all(row["loose"]) for row in stored),
    )
    strict = sum(all(row["strict"]) for row in stored)
    assert result.metrics["prompt_strict"] == strict / 294 and result.metrics["prompt_loose"] == 40 / 294
    kept = sum(sum(row["loose"]) for row in stored)
    assert result.metrics["instruction_loose"] == kept / 335


@pytest.mark.parametrize("path", sorted(PROTOCOLS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_protocol_names_tasks_that_exist(path):
    shared = yaml.safe_load((PROTOCOLS / "_evaluation.yaml").read_text())
    protocol = shared | yaml.safe_load(path.read_text())
    known = {task.stem for task in TASKS_DIR.glob("*/*.yaml")}
    assert set(protocol["tasks"]) <= known
    for field in ("samples", "max_new_tokens"):
        assert set(protocol[field]) <= known | {"all"}
        assert all(isinstance(value, int) and value > 0 for value in protocol[field].values())


@needs_data
def test_aime_2026_is_the_contest_of_that_year(tokenizer):
    """Its first answer is 277; ids are numbers whatever the copy calls them."""
    rows = documents("aime26", tokenizer)
    assert (rows[0]["id"], rows[0]["answer"], rows[-1]["id"]) == ("0", "277", "29")
    assert all(0 <= int(row["answer"]) <= 999 for row in rows)


def test_hmmt_in_the_layout_of_matharena(tokenizer, tmp_path):
    """Answers are formulas; a value that is written in another way counts."""
    (tmp_path / "hmmt25").mkdir()
    row = {"problem_idx": 1, "problem": "?", "answer": r"\frac{1}{2}", "problem_type": ["Algebra"]}
    (tmp_path / "hmmt25" / "test.jsonl").write_text(json.dumps(row) + "\n")
    engine = ScriptedEngine(lambda request: r"\boxed{0.5}", tokenizer)
    (result,) = scored(engine, tokenizer, ["hmmt25"], run_seed=0, max_length=65536, data_dir=str(tmp_path), samples=2)
    assert (result.items[0].item_id, result.evaluation.correct) == ("1", (2,))


def test_the_protocol_of_the_paper():
    protocol = yaml.safe_load((PROTOCOLS / "tropd_paper.yaml").read_text())
    assert protocol["samples"] == {
        "aime24": 32,
        "aime25": 32,
        "amc23": 32,
        "livecodebench_v6": 1,
        "gpqa_diamond": 4,
        "mmlu_redux": 1,
        "ifbench": 1,
    }
