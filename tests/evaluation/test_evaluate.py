"""`python -m harness.evaluate`: rows that the leaderboard takes, nothing generated twice, and the evaluators' own
validation.
"""

import contextlib
import json
import math
import shutil
from pathlib import Path

import pytest
from transformers import Qwen3Config

from harness.evaluate import main
from harness.evaluation import standalone
from harness.evaluation.model import EvaluatedModel
from harness.evaluation.validation import cut_percent, repeat_standard_error
from harness.leaderboard import main as leaderboard
from harness.results.record import load_record, write_record
from harness.rollout.hf import HFEngine
from tests.results.synthetic import run
from tests.scripted import ScriptedEngine

from .conftest import AIME_LAYOUT, make_tokenizer

STUDENT = "harness/tiny/checkpoints/student"
SMALL = [
    "evaluation=tiny",
    "evaluation.tasks=[aime24]",
    "evaluation.samples.aime24=2",
    "evaluation.max_new_tokens.aime24=8",
    f"evaluation.data_dir={AIME_LAYOUT}",
]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def evaluate(results: Path, *more: str, checkpoint: str = STUDENT) -> int:
    return main([f"checkpoint={checkpoint}", *SMALL, f"results_dir={results}", *more])


def test_any_checkpoint_becomes_a_row_with_lm_evals_own_results_beside_it(tmp_path, monkeypatch, capsys):
    assert evaluate(tmp_path) == 0
    (folder,) = tmp_path.glob("evaluated-*/student/seed0")
    record = load_record(folder / "record.json")
    assert (record.method, record.status, record.seed) == ("student", "completed", 0)
    (row,) = record.evaluations
    assert (row.task, row.problems, row.samples) == ("aime24", 4, 2) and row.metrics["maj_at_k"] == row.score == 0.0
    (result,) = (folder / "lm_eval").glob("results_aime24-*.json")
    assert json.loads(result.read_text())["results"]["aime24"]["avg_at_k,all"] == 0.0
    assert len((folder / "generations.jsonl").read_text().splitlines()) == 8
    assert "4 x 2" in capsys.readouterr().out
    assert leaderboard([str(folder.parent.parent)]) == 0

    def never(*_: object) -> None:
        raise AssertionError("generated twice")

    monkeypatch.setattr(HFEngine, "generate", never)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert evaluate(tmp_path) == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (folder / "record.json").unlink()  # whatever else is lost, the samples are there
    assert evaluate(tmp_path) == 0
    assert load_record(folder / "record.json").evaluations == record.evaluations


def test_a_name_is_one_checkpoint_until_it_is_replaced(tmp_path, capsys):
    assert evaluate(tmp_path, "name=mine") == 0
    other = "harness/tiny/checkpoints/student_style"
    assert evaluate(tmp_path, "name=mine", checkpoint=other) == 2
    assert "give name=<another name> to keep both, or fresh=true" in capsys.readouterr().err
    assert evaluate(tmp_path, "name=mine", "fresh=true", checkpoint=other) == 0
    (folder,) = tmp_path.glob("evaluated-*/mine/seed0")
    assert load_record(folder / "record.json").knobs["checkpoint"] == other
    assert len((folder / "generations.jsonl").read_text().splitlines()) == 8


def test_overwritten_weights_do_not_get_the_old_score(tmp_path, capsys):
    """The recipe that lies beside them says nothing of the weights."""
    model = shutil.copytree(STUDENT, tmp_path / "model")
    assert evaluate(tmp_path, checkpoint=str(model)) == 0
    shutil.copy("harness/tiny/checkpoints/student_style/model.safetensors", model)
    assert evaluate(tmp_path, checkpoint=str(model)) == 2
    assert "is of another weights (sha256:" in capsys.readouterr().err
    assert evaluate(tmp_path, "fresh=true", checkpoint=str(model)) == 0


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"])
def test_whatever_a_score_depends_on_is_another_checkpoint(name, tmp_path, capsys):
    model = shutil.copytree(STUDENT, tmp_path / "model")
    assert evaluate(tmp_path, checkpoint=str(model)) == 0
    (model / name).write_text((model / name).read_text() + "\n")
    assert evaluate(tmp_path, checkpoint=str(model)) == 2
    assert "is of another weights (sha256:" in capsys.readouterr().err


def test_a_template_that_leaves_the_question_out_is_refused(tmp_path, capsys):
    model = shutil.copytree(STUDENT, tmp_path / "model")
    (model / "chat_template.jinja").write_text("Answer:")
    assert evaluate(tmp_path, checkpoint=str(model)) == 2
    assert "leaves the question out: of 'What is 1 + 1?' it makes 'Answer:'; correct" in capsys.readouterr().err
    assert not list(tmp_path.glob("evaluated-*/*/*/record.json"))


def test_another_template_has_rows_of_its_own(tmp_path):
    model = shutil.copytree(STUDENT, tmp_path / "model")
    assert evaluate(tmp_path, checkpoint=str(model)) == 0
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert evaluate(tmp_path, checkpoint=str(model)) == 0
    assert len(list(tmp_path.glob("evaluated-*/model/seed0/record.json"))) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["checkpoint=/nowhere"], "there is no model folder '/nowhere'"),
        ([f"checkpoint={Path(__file__).parent}"], "holds no model: it has no config.json"),
        ([], "checkpoint is not set; give checkpoint=<folder or Hugging Face Hub id>"),
        ([f"checkpoint={STUDENT}", "evaluation=mine"], "there is no 'evaluation/mine'; known options of evaluation:"),
        (
            [f"checkpoint={STUDENT}", "samples=3"],
            "unknown key 'samples' (did you mean evaluation.samples?); `python -m harness.evaluate",
        ),
        ([f"checkpoint={STUDENT}", "dtype=int4"], "dtype='int4': must be one of auto"),
        ([f"checkpoint={STUDENT}", "name=a/b"], "name='a/b': it names a folder too"),
        ([f"checkpoint={STUDENT}", "evaluation.tasks=[chess]"], "Unknown task 'chess'; known:"),
        (["checkpoint=x", "dry_run=true", "evaluation.tasks=[chess]"], "Unknown task 'chess'; known:"),
        (
            ["checkpoint=x", "dry_run=true", "evaluation.samples.aime24=0"],
            "evaluation.samples.aime24=0: must be positive",
        ),
        (["checkpoint=x", "dry_run=true", "evaluation.samples=0"], "evaluation.samples.all=0: must be positive"),
        (["checkpoint=x", "dry_run=true", "limit=0"], "limit=0: must be positive"),
        (["checkpoint=x", "evaluation.max_new_tokns=5"], "unknown key 'evaluation.max_new_tokns'"),
        (
            ["checkpoint=x", "dry_run=true", "evaluation.samples.gsm8=1"],
            "evaluation.samples.gsm8: there is no such task",
        ),
        (["checkpoint=x", "dry_run=true", "evaluation.max_new_tokens.gsm8k=-5"], "evaluation.max_new_tokens.gsm8k=-5"),
        (
            ["checkpoint=x", "dry_run=true", "evaluation.sampling.all.temprature=1"],
            "evaluation.sampling.all.temprature: ",
        ),
        (
            ["checkpoint=x", "dry_run=true", "evaluation.sampling.gsm8k.top_p=hot"],
            "gsm8k.top_p='hot': must be a number",
        ),
        (
            [f"checkpoint={STUDENT}", *SMALL, "evaluation.metadata.aime24.start=1"],
            "metadata.aime24.start: the task has no",
        ),
        (["checkpoint=x", "evaluation=null"], "are chosen by a name"),
        (["experiment=ci_regression"], "unknown key 'setting'"),
        (["experiment=validate_evaluators", "validate=[1]"], "validate[0] is 1: it must be a mapping of "),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, capsys, arguments, sentence):
    assert main([*arguments, f"results_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def scripted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every checkpoint answers 5, whoever evaluates; the engines that were asked for."""
    asked: list[str] = []

    @contextlib.contextmanager
    def load(config, folder, longest):
        asked.append(config.engine.who("evaluation"))
        tokenizer = make_tokenizer()
        engine = ScriptedEngine(lambda request: "5", tokenizer)
        yield EvaluatedModel(engine, tokenizer, 100_000, (tokenizer.eos_token_id,))

    monkeypatch.setattr(standalone, "load_checkpoint", load)
    monkeypatch.setattr("harness.engines.checks.check_installed", lambda *_: None)
    return asked


def test_any_engine_scores_and_the_row_says_which(tmp_path, monkeypatch, capsys):
    """A column is one engine's; its samples are taken by no other engine, whatever is lost."""
    asked = scripted(monkeypatch)
    assert evaluate(tmp_path, "engine.evaluation=vllm") == 0
    (folder,) = tmp_path.glob("evaluated-*/student/seed0")
    record = load_record(folder / "record.json")
    assert (record.engine, record.teacher_engine, [e.engine for e in record.evaluations]) == ("vllm", "", ["vllm"])
    capsys.readouterr()
    assert evaluate(tmp_path) == 2
    error = capsys.readouterr().err
    assert "the samples of aime24 were drawn by vllm" in error and "give engine.evaluation=vllm" in error
    assert "name=…" in error and error.count("\n") == 1
    (folder / "record.json").unlink()
    assert evaluate(tmp_path) == 0
    assert [e.engine for e in load_record(folder / "record.json").evaluations] == ["hf"]
    assert len((folder / "generations.jsonl").read_text().splitlines()) == 16
    assert asked == ["vllm", "hf"]


def test_a_runs_checkpoint_is_scored_by_another_engine_under_a_name(tmp_path, monkeypatch, capsys):
    """In the run's own record without one. A named row is outside of the run, on the run's random numbers."""
    scripted(monkeypatch)
    own = tmp_path / "tiny-0" / "opd" / "seed4"
    checkpoint = shutil.copytree(STUDENT, own / "checkpoint")
    trained = run("opd", 4, engine="vllm", teacher_engine="hf")
    write_record(own / "record.json", trained)
    assert evaluate(tmp_path, checkpoint=str(checkpoint)) == 0
    record = load_record(own / "record.json")
    assert (record.engine, record.teacher_engine, record.evaluations[-1].engine) == ("vllm", "hf", "hf")
    assert evaluate(tmp_path, "engine=vllm", checkpoint=str(checkpoint)) == 2
    assert "drawn by hf" in capsys.readouterr().err
    assert evaluate(tmp_path, "engine=vllm", "name=opd-by-vllm", checkpoint=str(checkpoint)) == 0
    assert load_record(own / "record.json") == record
    (named,) = tmp_path.glob("evaluated-*/opd-by-vllm/seed4/record.json")
    assert [e.engine for e in load_record(named).evaluations] == ["vllm"]


def test_a_number_is_that_of_every_task_and_an_entry_may_be_new(tmp_path, capsys):
    """The protocol `quick` names neither GSM8K nor MATH-500, and gives AIME 4,096 tokens."""
    given = ["evaluation=quick", "evaluation.tasks=[gsm8k,math500,aime24]", "evaluation.samples=1"]
    assert (
        main([*given, "evaluation.samples.math500=3", "evaluation.max_new_tokens=96", "checkpoint=x", "dry_run=true"])
        == 0
    )
    assert [line.strip() for line in capsys.readouterr().out.splitlines()[1:]] == [
        "gsm8k: 1 samples a problem; at most 96 tokens each",
        "math500: 3 samples a problem; at most 96 tokens each",
        "aime24: 1 samples a problem; at most 96 tokens each",
    ]


def test_a_limit_is_a_subset_with_a_name_and_a_hash_of_its_own(tmp_path, capsys):
    """Its samples are those of the whole evaluation, which goes on from them; no table takes it for the whole."""
    assert evaluate(tmp_path, "limit=3") == 0
    assert "aime24 (3 of 4)" in capsys.readouterr().out
    (folder,) = tmp_path.glob("evaluated-*/student/seed0")
    assert evaluate(tmp_path) == 0
    part, whole = load_record(folder / "record.json").evaluations
    assert (part.task, part.problems, whole.task, whole.problems) == ("aime24 (3 of 4)", 3, "aime24", 4)
    assert part.protocol_hash != whole.protocol_hash and part.correct == whole.correct[:3]
    assert len((folder / "generations.jsonl").read_text().splitlines()) == 8
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    assert [row["task"] for row in items] == ["aime24 (3 of 4)"] * 6 + ["aime24"] * 8
    assert evaluate(tmp_path, "limit=4") == evaluate(tmp_path, "limit=3") == 0  # all problems are the whole
    assert load_record(folder / "record.json").evaluations == (part, whole)
    capsys.readouterr()
    assert leaderboard([str(folder.parent.parent)]) == 0
    printed = capsys.readouterr().out
    assert "aime24 (3 of 4)" in printed and "average" not in printed


def test_the_unsafe_switch_is_a_key_of_the_evaluation(tmp_path, monkeypatch):
    seen = []
    monkeypatch.delenv("ALLOW_UNSANDBOXED_CODE", raising=False)

    def look(*_: object, **__: object) -> ScriptedEngine:
        import os

        seen.append(os.environ.get("ALLOW_UNSANDBOXED_CODE"))
        raise KeyboardInterrupt

    monkeypatch.setattr(HFEngine, "generate", look)
    assert evaluate(tmp_path, "evaluation.allow_unsandboxed_code=true") == 130
    assert evaluate(tmp_path) == 130
    assert seen == ["1", None]


def test_a_plan_names_every_published_score_and_loads_nothing(tmp_path, capsys):
    assert main(["experiment=validate_evaluators", "dry_run=true", f"results_dir={tmp_path}"]) == 0
    plan = capsys.readouterr().out
    for published in ("36.80", "40.10", "36.45", "39.52", "28.57", "20.07", "28.90", "83.90"):
        assert f"published {published} %" in plan
    assert "aime25: 64 samples a problem; at most 38,912 tokens each; temperature 0.6, top_p 0.95, top_k 20" in plan
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_had_is_a_row_with_its_reason(tmp_path, capsys):
    assert main(["experiment=validate_evaluators", f"results_dir={tmp_path}"]) == 1
    printed = capsys.readouterr().out
    assert (
        "0 of 8 scored" in printed and "Not scored: cannot load the model configuration of 'Qwen/Qwen3-1.7B'" in printed
    )


@pytest.mark.parametrize(("right", "within"), [(350, "yes"), (250, "no")])
def test_replayed_answers_give_the_published_total(tmp_path, monkeypatch, capsys, right, within):
    """350 of 960 right is the 36.45 that TrOPD prints for Qwen3-1.7B: 36.458 cut off after two decimals."""
    make_tokenizer().save_pretrained(tmp_path / "model")
    Qwen3Config().save_pretrained(tmp_path / "model")
    (tmp_path / "data" / "aime25").mkdir(parents=True)
    problems = [{"id": str(i), "problem": f"What is {i} + 0?", "answer": str(i)} for i in range(30)]
    (tmp_path / "data" / "aime25" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))

    def answer(request) -> str:
        problem = int(request.prompt_id.removeprefix("aime25/"))
        is_right = problem * 32 + request.sample_index < right
        return f"<think>hm</think>\\boxed{{{problem if is_right else 999}}}"

    @contextlib.contextmanager
    def load(config, folder, longest):
        tokenizer = make_tokenizer()
        yield EvaluatedModel(ScriptedEngine(answer, tokenizer), tokenizer, 100_000, (tokenizer.eos_token_id,))

    monkeypatch.setattr(standalone, "load_checkpoint", load)
    claim = "{evaluation:tropd_paper,tasks:[aime25],table:figure1,row:Qwen3-1.7B,revision:null,checkpoint:'%s'}"
    arguments = [f"validate=[{claim % (tmp_path / 'model')}]", f"evaluation.data_dir={tmp_path / 'data'}"]
    assert main([*arguments, f"results_dir={tmp_path / 'results'}"]) == 0
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if " aime25 " in line]
    assert row[row.index("aime25") + 1] == "36.45" and within in row
    assert cut_percent(right, 960) in row
    (record,) = (tmp_path / "results").glob("evaluated-*/model/seed0/record.json")
    (evaluation,) = load_record(record).evaluations
    assert sum(evaluation.correct) == right and evaluation.problems * evaluation.samples == 960


def test_decimals_are_cut_as_the_paper_cuts_them():
    printed = {(391, 960): "40.72", (350, 960): "36.45", (986, 1280): "77.03", (1047, 1280): "81.79", (3, 3): "100.00"}
    assert {key: cut_percent(*key) for key in printed} == printed  # 391/960 is 40.729, 1047/1280 is 81.797


def test_the_spread_over_repeats():
    # two problems, four samples: shares 1/4 and 1. Variance of the first mean: 1/4 * 3/4 / 3 = 1/16, of the second: 0.
    # The score is their mean: variance 1/64.
    assert repeat_standard_error([1, 4], 4) == pytest.approx(1 / 8)
    # one sample a problem, 3 of 4 right: binomial, 3/4 * 1/4 / 4
    assert repeat_standard_error([1, 1, 1, 0], 1) == pytest.approx(math.sqrt(3 / 64))
