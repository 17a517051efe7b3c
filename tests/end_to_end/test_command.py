"""`python -m harness.run` as a person uses it, on the shipped models and a few steps.

One comparison is run by the command itself, in its own processes. What follows starts from copies of its folder and
runs the same `main` in this process, since starting an interpreter with torch takes longer than what the tests are
about.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from harness.config.methods import method_source
from harness.console import parent
from harness.console.commands import complain_once
from harness.evaluate import main as evaluate
from harness.files import ROOT
from harness.results.record import load_record, write_record
from harness.run import main

PROMPTS = Path(__file__).parent.parent / "data" / "prompts.jsonl"
SMALL = [
    f"setting.prompts={PROMPTS}",
    "setting.steps=4",
    "setting.prompts_per_step=8",
    "engine.micro_batch_prompts=8",
    "evaluation.dev_every=2",
    "++evaluation.samples.arithmetic=1",
]


def harness_run(*arguments: str, cwd: Path | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "harness.run", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd or ROOT,
        timeout=300,
        env={**os.environ, "COLUMNS": "140", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


Run = Callable[..., str]


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process, one run after the other; returns what it said on stderr."""

    def run(*arguments: str, code: int = 0) -> str:
        launched = [] if "hydra.mode=RUN" in arguments else ["hydra/launcher=basic"]
        monkeypatch.setattr(sys, "argv", ["harness.run", *arguments, *launched])
        answer = main()
        said = capsys.readouterr()
        assert answer == code, said.out + said.err
        return said.err

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(parent.VARIABLE, "")  # the command sets it; gone again after the test
    return run


@pytest.fixture
def copied(comparison: Path, tmp_path: Path) -> Path:
    """The folder of the finished comparison, of which a test may change anything."""
    results = tmp_path / "copy"
    shutil.copytree(comparison.parent, results)
    return results / comparison.name


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small comparison: opd and tropd on one seed, with the rows of student and teacher."""
    results = tmp_path_factory.mktemp("results")
    harness_run("method=opd,tropd", "seed=0", f"results_dir={results}", *SMALL)
    (folder,) = results.glob("tiny_cpu-????????")
    return folder


def test_a_run_leaves_its_folder(comparison: Path) -> None:
    folder = comparison / "tropd" / "seed0"
    record = load_record(folder / "record.json")
    assert record.status == "completed"
    assert record.counters.steps == 4
    assert record.counters.student_tokens > 0
    assert record.counters.teacher_tokens > 0
    assert record.provenance["versions"]["torch"]
    assert record.provenance["inputs"].keys() == {"student", "teacher", "prompts", "recipe"}
    assert record.provenance["method_source"] == method_source("tropd")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    expected = {
        "loss",
        "loss/policy",
        "loss/divergence",
        "loss/imitation",
        "grad_norm",
        "entropy/student",
        "outlier/frac",
    }
    expected |= {"kl/total_variation", "reward/q50", "length/completion", "length/prefix", "truncated_frac"}
    expected |= {"guidance/asked", "guidance/given", "guidance/in_vain_frac"}
    expected |= {"tokens/student", "time/rollout_s", "time/scoring_s", "time/update_s", "learning_rate"}
    assert expected <= rows[0].keys()
    assert [row["step"] for row in rows if "eval/arithmetic_dev" in row] == [2, 4]
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    texts = [json.loads(line) for line in (folder / "texts.jsonl").read_text().splitlines()]
    assert [e.column for e in record.evaluations] == [f"arithmetic@{name}" for name in ("greedy", "paper", "sampled")]
    assert len(items) == len(texts) == 3 * 256
    for evaluation in record.evaluations:
        mine = [row["correct"] for row in items if row["protocol_hash"] == evaluation.protocol_hash]
        assert sum(mine) / 256 == pytest.approx(evaluation.score)
    assert not (folder / "trainer").exists()
    card = ModelCard.load(folder / "checkpoint" / "README.md")
    assert [result.metric_value for result in card.data.eval_results] == [
        round(100 * e.score, 2) for e in record.evaluations
    ]


def test_the_checkpoint_is_an_ordinary_one(comparison: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = comparison / "opd" / "seed0" / "checkpoint"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert sum(p.numel() for p in model.parameters()) == 78_272
    assert AutoTokenizer.from_pretrained(folder).chat_template


def test_the_table_has_every_row(comparison: Path) -> None:
    table = (comparison / "leaderboard.md").read_text()
    for row in ("student", "opd", "tropd", "teacher"):
        assert f"| {row} |" in table
    board = json.loads((comparison / "leaderboard.json").read_text())
    assert board


def test_running_again_trains_nothing(copied: Path, run_here: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied.glob("*/*/metrics.jsonl")}
    records = {path: path.read_text() for path in copied.glob("*/*/record.json")}
    assert len(before) == 2 and len(records) == 4
    run_here("method=opd,tropd", "seed=0", f"results_dir={copied.parent}", *SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in copied.glob("*/*/metrics.jsonl")}
    assert records == {path: path.read_text() for path in copied.glob("*/*/record.json")}


def test_one_run_joins_the_table_and_a_new_task_trains_nothing(copied: Path, run_here: Run) -> None:
    weights = (copied / "opd" / "seed0" / "checkpoint" / "model.safetensors").read_bytes()
    data = Path(__file__).parent.parent / "data"
    run_here(
        "method=opd",
        "seed=0",
        "hydra.mode=RUN",
        f"results_dir={copied.parent}",
        "evaluation.tasks=[arithmetic,aime24]",
        f"evaluation.data_dir={data}",
        "evaluation.max_new_tokens.aime24=16",
        *SMALL,
    )
    record = load_record(copied / "opd" / "seed0" / "record.json")
    assert {evaluation.task for evaluation in record.evaluations} == {"arithmetic", "aime24"}
    aime = next(e for e in record.evaluations if e.task == "aime24")
    assert aime.truncated_frac > 0.5
    assert (copied / "opd" / "seed0" / "checkpoint" / "model.safetensors").read_bytes() == weights
    assert "aime24" in (copied / "leaderboard.md").read_text()


def test_a_failed_run_is_a_row_and_a_non_zero_exit(copied: Path, run_here: Run) -> None:
    folder = copied / "eopd" / "seed0"
    # a file where the trainer wants its folder
    folder.mkdir(parents=True)
    (folder / "trainer").write_text("")
    said = run_here("method=eopd", "seed=0", "hydra.mode=RUN", f"results_dir={copied.parent}", *SMALL, code=1)
    record = load_record(folder / "record.json")
    assert record.status == "failed"
    assert record.reason
    assert "eopd" in (copied / "leaderboard.md").read_text()
    assert "Traceback" not in said
    (folder / "trainer").unlink()
    run_here("method=eopd", "seed=0", "hydra.mode=RUN", f"results_dir={copied.parent}", *SMALL)
    assert load_record(folder / "record.json").status == "completed"


def test_a_disk_that_fills_up_leaves_the_run_to_be_taken_up(
    copied: Path, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the reason cannot be written either, the record stays the one of a run that has not ended."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    command = ["method=eopd", "seed=0", "hydra.mode=RUN", f"results_dir={copied.parent}", *SMALL]
    with monkeypatch.context() as patched:
        patched.setattr("harness.training.job.train", full)
        patched.setattr("harness.training.job.traceback.format_exc", full)
        patched.setattr("harness.run.add_untrained_rows", lambda _: full())
        complain_once.cache_clear()
        said = run_here(*command, code=2)
    assert said.count(f"no room left on the disk of {copied / 'eopd' / 'seed0'}") == 1  # and the table has none either
    assert "Traceback" not in said
    assert load_record(copied / "eopd" / "seed0" / "record.json").status == "started"
    run_here(*command)
    assert load_record(copied / "eopd" / "seed0" / "record.json").status == "completed"


@pytest.mark.parametrize(
    ("name", "content"),
    [("generation_config.json", '{"eos_token_id": 3}'), ("chat_template.jinja", "{{ messages[0].content }}")],
)
def test_scores_are_of_the_checkpoint_that_is_there(name: str, content: str, copied: Path, run_here: Run) -> None:
    """By either command; what is left is as it was."""
    folder = copied / "opd" / "seed0"
    before = (folder / "record.json").read_bytes()
    (folder / "checkpoint" / name).write_text(content)
    command = ["method=opd", "seed=0", "hydra.mode=RUN", f"results_dir={copied.parent}", *SMALL]
    assert "was scored with another checkpoint" in run_here(*command, code=2)
    given = [f"checkpoint={folder / 'checkpoint'}", "evaluation=tiny", "++evaluation.samples.arithmetic=1"]
    assert evaluate([*given, f"results_dir={copied.parent}"]) == 2
    assert (folder / "record.json").read_bytes() == before


def test_a_run_that_never_ended_is_shown_and_taken_up(copied: Path, run_here: Run) -> None:
    path = copied / "tropd" / "seed0" / "record.json"
    write_record(path, replace(load_record(path), status="started", evaluations=()))
    run_here("method=opd", "seed=0", "hydra.mode=RUN", f"results_dir={copied.parent}", *SMALL)
    assert "did not finish" in (copied / "leaderboard.md").read_text()
    run_here("method=tropd", "seed=0", "hydra.mode=RUN", f"results_dir={copied.parent}", *SMALL)
    assert "did not finish" not in (copied / "leaderboard.md").read_text()


def test_a_corrupt_record_is_named(copied: Path, run_here: Run) -> None:
    (copied / "opd" / "seed0" / "record.json").write_text('{"method": "opd", ')
    said = run_here("method=opd", "seed=0", "hydra.mode=RUN", f"results_dir={copied.parent}", *SMALL, code=2)
    assert "record.json" in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1


def test_a_half_written_row_is_named(copied: Path, run_here: Run) -> None:
    items = copied / "opd" / "seed0" / "items.jsonl"
    items.write_text(items.read_text()[:-20])
    said = run_here("method=opd", "seed=0", "hydra.mode=RUN", f"results_dir={copied.parent}", *SMALL, code=2)
    assert "items.jsonl, line 768" in said  # of 256 problems under three decodings
    assert len(said.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_method_dropped_in_as_one_file_is_found(tmp_path: Path) -> None:
    """A copy of the project with one more file in baselines/: no other edit, and it runs and passes
    the contract tests.
    """
    project = tmp_path / "project"
    project.mkdir()
    for name in ("harness", "baselines", "tasks", "conf", "tests", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, project / name)
    (project / "baselines" / "signed.py").write_text(
        '"""Sign of the reward."""\n'
        "from dataclasses import dataclass\n"
        "import torch\n"
        "from harness.types import Method, TokenCredit\n\n\n"
        "@dataclass(frozen=True)\n"
        "class Signed(Method):\n"
        '    """The sign of the log-ratio, times a scale (ours)."""\n\n'
        "    scale: float = 1.0\n\n"
        "    def credit(self, batch, teacher, student, progress):\n"
        "        zeros = torch.zeros_like(teacher.logprobs)\n"
        "        return TokenCredit(self.scale * (teacher.logprobs - student.logprobs).sign(), zeros, zeros)\n\n\n"
        "METHOD = Signed\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(project), "HF_HUB_OFFLINE": "1"}
    command = [
        sys.executable,
        "-m",
        "harness.run",
        "method=signed",
        "method.scale=0.5",
        "seed=0",
        "hydra.mode=RUN",
        *SMALL,
        "setting.steps=2",
        "evaluation=none",  # what is scored, and how, knows no method
    ]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (path,) = project.glob("results/*/signed-*/seed0/record.json")
    record = load_record(path)
    assert (record.status, record.counters.steps, record.label) == ("completed", 2, "signed (scale=0.5)")
    assert "signed (scale=0.5)" in next(project.glob("results/*/leaderboard.md")).read_text()
    contract = [sys.executable, "-m", "pytest", "tests/contract", "-k", "signed", "-p", "no:cacheprovider"]
    done = subprocess.run(contract, cwd=project, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


def test_bring_your_own_pair(random_pair: Path, tmp_path: Path, run_here: Run) -> None:
    """Another pair, another prompt file, several samples a prompt: trained without a task, then scored without
    training.
    """
    prompts = tmp_path / "mine.jsonl"
    turns = [{"role": "user", "content": "Start with 1 , add 2"}]
    prompts.write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(6)))
    custom = [
        "setting=custom",
        "setting.name=mine",
        f"setting.student={random_pair / 'student'}",
        f"setting.teacher={random_pair / 'teacher'}",
        f"setting.prompts={prompts}",
        "setting.max_new_tokens=12",
        "setting.min_continuation=2",
        "setting.prompts_per_step=4",
        "setting.samples_per_prompt=2",
        "setting.top_k=16",
        "setting.steps=2",
        "engine.micro_batch_prompts=2",
        f"results_dir={tmp_path / 'results'}",
    ]
    run_here("method=opd,tropd", "seed=0", "evaluation=none", *custom)
    (folder,) = (tmp_path / "results").glob("mine-????????")
    table = (folder / "leaderboard.md").read_text()
    assert "none evaluated" in table
    for name in ("opd", "tropd"):
        record = load_record(folder / name / "seed0" / "record.json")
        assert (record.status, record.counters.steps, record.evaluations) == ("completed", 2, ())
    before = (folder / "opd" / "seed0" / "metrics.jsonl").read_text()
    scored = ["evaluation=none", "evaluation.tasks=[arithmetic]", "++evaluation.samples.arithmetic=1"]
    run_here("method=opd", "seed=0", "hydra.mode=RUN", *scored, *custom)
    assert [e.task for e in load_record(folder / "opd" / "seed0" / "record.json").evaluations] == ["arithmetic"]
    assert (folder / "opd" / "seed0" / "metrics.jsonl").read_text() == before


@pytest.mark.slow
def test_folders_with_signs_of_hydras_grammar(random_pair: Path, tmp_path: Path) -> None:
    """In a sweep, whose jobs get their command lines from Hydra."""
    home = tmp_path / "lr=1e-5 ü"
    shutil.copytree(random_pair, home)
    prompts = home / "my prompts.jsonl"
    shutil.copy(PROMPTS, prompts)
    given = [
        f"setting.student={home / 'student'}",
        f"setting.teacher={home / 'teacher'}",
        f"results_dir={home / 'results'}",
    ]
    small = [argument for argument in SMALL if not argument.startswith(("setting.prompts=", "setting.steps="))]
    harness_run(
        "method=opd", "seed=0", "evaluation=none", f"setting.prompts={prompts}", "setting.steps=1", *given, *small
    )
    assert [load_record(path).status for path in home.glob("results/*/opd/seed0/record.json")] == ["completed"]


def test_help_shows_the_groups() -> None:
    done = harness_run("--help")
    for word in ("method: additive_trust,", "setting:", "experiment:", "tiny_latent", "hydra.mode=RUN"):
        assert word in done.stdout
