"""harness.evaluation.driver: tasks run end to end on a scripted model."""

import os
import random
import sys
from pathlib import Path
from subprocess import run
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harness.errors import UserError
from harness.evaluation.driver import _question
from tasks.data import read_problems
from tests.evaluation.scoring import protocol_hashes, scored
from tests.scripted import ScriptedEngine

from .conftest import AIME_LAYOUT

REAL_DATA = os.environ.get("BENCHMARK_DATA")
ANSWERS = {"aime24/1": "25", "aime24/2": "8", "aime24/3": "343", "aime24/4": "100.0"}


def boxed(answer: str) -> str:
    return f"<think>It may be \\boxed{{999}}.</think>The answer is $\\boxed{{ {answer} }}$."


def run_aime(engine, tokenizer, **kwargs):
    settings = {"run_seed": 0, "max_length": 2048, "samples": 3, "data_dir": str(AIME_LAYOUT), **kwargs}
    (result,) = scored(engine, tokenizer, ["aime24"], **settings)
    return result


def test_all_correct_responses_score_1_with_leading_zeros_in_the_answers(tokenizer):
    result = run_aime(ScriptedEngine(lambda r: boxed(ANSWERS[r.prompt_id]), tokenizer), tokenizer)
    row = result.evaluation
    assert (row.score, row.problems, row.samples, row.correct) == (1.0, 4, 3, (3, 3, 3, 3))
    assert row.truncated_frac == 0.0
    scores = {"avg_at_k": 1.0, "pass_at_k": 1.0, "maj_at_k": 1.0, "correct": 12.0, "extracted": 1.0}
    graders = {"strict_score": 1.0, "official_score": 1.0, "graders_differ": 0.0, "official_grader": 0.0}
    assert result.metrics == scores | graders
    assert [(i.item_id, i.repeat) for i in result.items] == [(str(p), k) for p in (1, 2, 3, 4) for k in range(3)]
    assert result.texts[0] == {
        "task": "aime24",
        "protocol_hash": row.protocol_hash,
        "item_id": "1",
        "repeat": 0,
        "text": boxed("25"),
        "extracted": "25",
        "problem": "Find the sum of the first five odd positive integers.\n"
        "Please reason step by step, and put your final answer within \\boxed{}.",
        "reference": "025",
    }
    assert "problem" not in result.texts[1]  # once for each problem


def test_every_sample_counts_on_its_own(tokenizer):
    """Problem 1: two of three right. 2: one of three, so the majority is wrong. 3: never. 4: cut off before the box."""
    scripts = {
        "aime24/1": [boxed("25"), boxed("26"), boxed("025")],
        "aime24/2": [boxed("8"), boxed("9"), boxed("9")],
        "aime24/3": [boxed("1"), "no answer", "<think>It is \\boxed{343}"],
        "aime24/4": ["x" * 3000] * 3,
    }
    result = run_aime(ScriptedEngine(lambda r: scripts[r.prompt_id][r.sample_index], tokenizer), tokenizer)
    row = result.evaluation
    assert row.correct == (2, 1, 0, 0) and row.score == 3 / 12
    assert row.truncated_frac == 3 / 12
    assert result.metrics["maj_at_k"] == 1 / 4 and result.metrics["pass_at_k"] == 2 / 4
    assert [i.correct for i in result.items] == [1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert [t["extracted"] for t in result.texts[6:9]] == ["1", None, None]
    truncated = [i for i in result.items if i.stop_reason == "length"]
    assert {i.item_id for i in truncated} == {"4"}
    prompt = "Find the area"  # the limit is what the prompt leaves of 2,048 positions, below the task's 32,768
    assert 1800 < truncated[0].tokens < 2048 - len(prompt)
    assert row.mean_tokens == sum(i.tokens for i in result.items) / 12


def test_the_seed_is_a_coordinate_of_the_samples_and_what_else_is_evaluated_is_not(tokenizer):
    def seeds(run_seed: int, tasks: list[str]) -> dict:
        engine = ScriptedEngine(lambda r: "", tokenizer)
        scored(engine, tokenizer, tasks, run_seed=run_seed, max_length=2048, samples=2, data_dir=str(AIME_LAYOUT))
        return {(r.prompt_id, r.sample_index): r.seed for r in engine.requests if r.prompt_id.startswith("aime24")}

    alone = seeds(0, ["aime24"])
    assert len(set(alone.values())) == 8
    assert seeds(0, ["arithmetic_dev", "aime24"]) == alone
    assert not set(seeds(1, ["aime24"]).values()) & set(alone.values())


def test_arithmetic_is_found_with_its_data_and_can_be_limited(tokenizer):
    engine = ScriptedEngine(lambda r: "so \\boxed{ 8 } .", tokenizer)
    dev, test = scored(engine, tokenizer, ["arithmetic_dev", "arithmetic"], run_seed=0, max_length=2048, limit=5)
    assert (dev.evaluation.samples, test.evaluation.samples) == (1, 4)
    assert (dev.evaluation.problems, test.evaluation.problems) == (5, 5)
    assert dev.items[0].item_id != test.items[0].item_id
    assert engine.requests[0].prompt_ids[0] == tokenizer.bos_token_id


def test_generation_settings_can_be_changed(tokenizer):
    result = run_aime(ScriptedEngine(lambda r: "x" * 99, tokenizer), tokenizer, generation={"max_gen_toks": 10})
    assert result.evaluation.mean_tokens == 10 and result.evaluation.truncated_frac == 1.0


def test_an_evaluation_leaves_no_trace(tokenizer, capfd):
    """It runs in the middle of a training: the global generators and the terminal stay as they were."""
    engine = ScriptedEngine(lambda r: boxed("1"), tokenizer)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    first, second = run_aime(engine, tokenizer), run_aime(engine, tokenizer)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert first == second
    assert capfd.readouterr() == ("", "")


def test_lm_eval_is_imported_at_the_first_use():
    code = "import sys, harness.evaluation; sys.exit('lm_eval' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0


def test_bad_input_is_one_sentence(tokenizer, tmp_path):
    engine = ScriptedEngine(lambda r: "", tokenizer)
    with pytest.raises(UserError, match=r"Unknown task 'aime42'; known: .*aime24.*arithmetic"):
        scored(engine, tokenizer, ["aime42"], run_seed=0, max_length=2048)
    with pytest.raises(UserError, match=r"data folder .*nowhere does not exist.*contains aime24/test.jsonl"):
        run_aime(engine, tokenizer, data_dir=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"aime24/test.jsonl does not exist; evaluation.data_dir"):
        run_aime(engine, tokenizer, data_dir=str(tmp_path))
    (tmp_path / "aime24").mkdir()
    (tmp_path / "aime24" / "test.jsonl").write_text('{"id": 1, "problem": "p", "answer": "1"}\n{"id": 2, "prob')
    with pytest.raises(UserError, match=r"test.jsonl, line 2: "):
        run_aime(engine, tokenizer, data_dir=str(tmp_path))
    for kwargs, message in (({"samples": 0}, "samples must be at least 1"), ({"limit": 0}, "limit must be at least 1")):
        with pytest.raises(UserError, match=message):
            run_aime(engine, tokenizer, **kwargs)
    with pytest.raises(UserError, match="min_p"):
        run_aime(engine, tokenizer, generation={"min_p": 0.1})
    with pytest.raises(UserError, match="different task names"):
        protocol_hashes(["aime24", "aime24"], tokenizer)
    assert scored(engine, tokenizer, [], run_seed=0, max_length=2048) == []


@pytest.mark.skipif(REAL_DATA is None, reason="BENCHMARK_DATA does not name a folder with the real aime24/test.jsonl")
def test_all_correct_responses_to_the_real_problems_score_100_percent(tokenizer):
    rows = read_problems(Path(str(REAL_DATA)) / "aime24" / "test.jsonl")
    answers = {f"aime24/{row['id']}": row["answer"].lstrip("0") or "0" for row in rows}
    engine = ScriptedEngine(lambda r: boxed(answers[r.prompt_id]), tokenizer)
    result = run_aime(engine, tokenizer, samples=None, data_dir=REAL_DATA, max_length=8192)
    assert (result.evaluation.problems, result.evaluation.samples) == (30, 32)
    assert result.evaluation.correct == (32,) * 30 and len(result.items) == 960


def test_a_target_that_only_names_the_problem_is_no_reference():
    """LiveCodeBench's target is its id, and IFBench's is empty: neither is an answer."""
    loaded = SimpleNamespace(task=SimpleNamespace(doc_to_text=lambda doc: doc["text"]))
    for target, reference in (("025", "025"), ("abc", None), ("", None)):
        row = {"doc": {"text": "How many?"}, "target": target}
        assert _question(loaded, row, "abc") == {"problem": "How many?", "reference": reference}
