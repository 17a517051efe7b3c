"""Several gloo ranks in float64 are one rank: losses, metrics and weights, and a run goes on on
another number of them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.eopd import EOPD
from baselines.opd import OPD
from baselines.reopold_2stage import REOPOLDTwoStage
from baselines.seqkd import SeqKD
from baselines.tropd import TrOPD
from harness.config.settings import EvaluationConfig, Launch, RunConfig, Setting
from harness.console.progress import RunProgress
from harness.errors import UserError
from harness.models.loading import load_model
from harness.results.record import read_metrics
from harness.results.samples import read_samples
from harness.training import ranks
from harness.training.train import train
from harness.types import TokenSignal
from tests.conftest import execution

STEPS = 3
METHODS = {
    "opd": OPD(),
    "eopd": EOPD(entropy_threshold=2.5),
    "reopold_2stage": REOPOLDTwoStage(t_switch=0.5),  # both stages; the second takes a quantile of the whole step
    "tropd": TrOPD(),  # with teacher prefixes
}
Result = tuple[dict[str, torch.Tensor], list[dict[str, Any]]]


def config_for(random_pair: Path, root: Path, method: str, **changes: Any) -> RunConfig:
    """Eight ragged prompts a step, one a micro-batch, two samples each, float64."""
    prompts = root / "prompts.jsonl"
    if not prompts.exists():
        texts = [f"Start with {i % 10} , add {i % 7} ." + " What is the result mod 1 0 ?" * (i % 2) for i in range(24)]
        prompts.write_text("".join(json.dumps({"id": str(i), "prompt": t}) + "\n" for i, t in enumerate(texts)))
    setting = Setting(
        name="test",
        student=str(random_pair / "student"),
        teacher=str(random_pair / "teacher"),
        prompts=str(prompts),
        prompts_split="train",
        student_revision=None,
        teacher_revision=None,
        dtype="float64",
        max_prompt_tokens=64,
        max_new_tokens=12,
        min_continuation=1,
        prompts_per_step=8,
        samples_per_prompt=2,
        temperature=1.0,
        top_p=1.0,
        top_k=8,
        steps=STEPS,
        learning_rate=1e-3,
        lr_schedule="constant",
        warmup_steps=0,
        weight_decay=0.0,
        adam_beta1=0.9,
        adam_beta2=0.95,
        max_grad_norm=1.0,
    )
    nothing = EvaluationConfig([], {}, {}, {}, [], None, False, None, 1000)
    engine = execution(micro_batch_prompts=1, save_every=changes.pop("save_every", 1000))
    config = RunConfig(setting, method, METHODS[method], engine, nothing, 0, root, False, [])
    return dataclasses.replace(config, **changes)


def result(folder: Path) -> Result:
    return load_model(str(folder / "checkpoint"), dtype="float64").state_dict(), read_metrics(folder)


def alone(config: RunConfig, folder: Path) -> Result:
    folder.mkdir(parents=True, exist_ok=True)
    train(config, folder, RunProgress(None, config.setting.steps))
    return result(folder)


def on_ranks(count: int, program: str, jobs: list[tuple[RunConfig, Path]], root: Path) -> None:
    """Several runs by a program of this folder on `count` ranks."""
    for _, folder in jobs:
        folder.mkdir(parents=True, exist_ok=True)
    (root / "jobs").write_bytes(pickle.dumps(jobs))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    script = str(Path(__file__).with_name(program))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*command, script, str(root / "jobs")], env=environment, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if line.startswith("[rank")]
    assert done.returncode == 0, "\n".join(said[-40:]) or done.stderr[-4000:]


def together(count: int, jobs: list[tuple[RunConfig, Path]], root: Path) -> list[Result]:
    """Several runs by the Trainer on `count` ranks."""
    on_ranks(count, "several_runs.py", jobs, root)
    return [result(folder) for _, folder in jobs]


def assert_equal(found: Result, expected: Result) -> None:
    assert len(found[1]) == len(expected[1])
    for mine, truth in zip(found[1], expected[1], strict=True):
        assert mine.keys() == truth.keys()
        for key, value in truth.items():
            if not key.startswith(("time/", "memory/")):
                assert mine[key] == pytest.approx(value, rel=1e-9, abs=1e-9), key
    for name, value in expected[0].items():
        torch.testing.assert_close(found[0][name], value, rtol=0, atol=1e-9, msg=name)


def test_without_a_process_group_everything_is_ones_own() -> None:
    assert (ranks.count(), ranks.index()) == (1, 0)
    assert ranks.from_main("value") == "value"
    assert ranks.gather_rows(["a", "b"], [0, 1]) == ["a", "b"]
    signal = TokenSignal(torch.zeros(2, 3))
    assert ranks.gather_tensors(signal, [0, 1]) is signal
    assert ranks.combined({"loss": 1.0, "time": 2.0}, ["time"]) == {"loss": 1.0, "time": 2.0}


def test_gathered_rows_are_in_the_order_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "_gather", lambda own: [own, [(1, "b"), (3, "d")]])
    assert ranks.gather_rows(["a", "c"], [0, 2]) == ["a", "b", "c", "d"]
    other = TokenSignal(torch.full((2, 1), 5.0), entropy=torch.full((2, 1), 6.0))
    monkeypatch.setattr(ranks, "_gather", lambda own: [own, ([1, 3], other)])
    own = TokenSignal(torch.full((2, 3), 1.0), entropy=torch.full((2, 3), 2.0))
    whole = ranks.gather_tensors(own, [0, 2])
    assert whole.logprobs.tolist() == [[1, 1, 1], [5, 0, 0], [1, 1, 1], [5, 0, 0]]
    assert whole.entropy is not None and whole.entropy[:, 0].tolist() == [2, 6, 2, 6]
    assert whole.topk_ids is None


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_ranks_change_nothing(random_pair: Path, tmp_path: Path, count: int) -> None:
    jobs = [(config_for(random_pair, tmp_path, name), tmp_path / f"{name}-{count}") for name in METHODS]
    found = together(count, jobs, tmp_path)
    for (config, folder), ours in zip(jobs, found, strict=True):
        expected = alone(config, Path(f"{folder}-alone"))
        assert any(row["loss/divergence"] for row in expected[1]) == (config.method_name in ("eopd", "tropd"))
        assert_equal(ours, expected)
        shown, truth = (read_samples(path) for path in (folder, Path(f"{folder}-alone")))
        assert [row["tokens"] for row in shown] == [row["tokens"] for row in truth] and len(shown) == STEPS


@pytest.mark.slow
def test_a_model_sharded_by_fsdp2_changes_nothing(random_pair: Path, tmp_path: Path) -> None:
    """Loss, gathered credit, denominators, gradient norms and weights; the program asserts that every parameter is a
    DTensor in pieces.
    """
    jobs = [
        (config_for(random_pair, tmp_path, name), tmp_path / f"{name}-fsdp2") for name in ("reopold_2stage", "tropd")
    ]
    on_ranks(2, "fsdp2_run.py", jobs, tmp_path)
    for config, folder in jobs:
        expected = alone(config, Path(f"{folder}-alone"))
        steps = json.loads((folder / "steps.json").read_text())
        for mine, truth in zip(steps, expected[1], strict=True):
            compared = [key for key in mine if not key.startswith("time/")]
            assert {"loss/policy", "grad_norm", "tokens/student", "reward/q01"} <= set(compared)
            for key in compared:
                assert mine[key] == pytest.approx(truth[key], rel=1e-9, abs=1e-9), key
        weights = torch.load(folder / "weights.pt")
        for name, value in expected[0].items():
            torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-9, msg=name)


@pytest.mark.slow
def test_the_trainer_on_a_sharded_student_changes_nothing(random_pair: Path, tmp_path: Path) -> None:
    """The real loop (accelerate's FSDP2, gradient clipping, the final save) on two ranks, for every kind of credit."""
    jobs = [(config_for(random_pair, tmp_path, name), tmp_path / f"{name}-fsdp2") for name in METHODS]
    on_ranks(2, "fsdp2_trainer.py", jobs, tmp_path)
    for config, folder in jobs:
        assert_equal(result(folder), alone(config, Path(f"{folder}-alone")))


@pytest.mark.slow
def test_a_sharded_bfloat16_student_has_float32_shards(random_pair: Path, tmp_path: Path) -> None:
    """It computes in bfloat16, as one process with masters does, and is stored in bfloat16. On given text, since
    another rounding draws other samples."""
    config = dataclasses.replace(config_for(random_pair, tmp_path, "opd"), method=SeqKD())
    config = dataclasses.replace(config, setting=dataclasses.replace(config.setting, dtype="bfloat16"))
    folder = tmp_path / "sharded"
    on_ranks(2, "fsdp2_trainer.py", [(config, folder)], tmp_path)
    stored = load_model(str(folder / "checkpoint"), dtype="auto").state_dict()
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    expected, rows = alone(config, tmp_path / "alone")
    for mine, truth in zip(read_metrics(folder), rows, strict=True):
        assert mine["loss"] == pytest.approx(truth["loss"], rel=2**-8)  # a last place of bfloat16
    # Adam takes the sign of a gradient at first, so rounding shows in the weights. It takes them no further from a
    # float32 run than one process with masters is.
    wide = dataclasses.replace(config, setting=dataclasses.replace(config.setting, dtype="float32"))
    truth, _ = alone(wide, tmp_path / "wide")
    sharded, masters = [
        torch.cat([(weights[name].double() - value).flatten() for name, value in truth.items()]).norm()
        for weights in (stored, expected)
    ]
    assert 0 < sharded < 1.1 * masters


@pytest.mark.slow
def test_a_run_saved_on_two_ranks_goes_on_on_one_and_on_four(random_pair: Path, tmp_path: Path) -> None:
    config = config_for(random_pair, tmp_path, "tropd", save_every=1)
    expected = alone(config, tmp_path / "alone")
    killed = tmp_path / "killed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STOP_AFTER_STEP", "2")
        with pytest.raises(AssertionError, match="stopped on purpose"):
            together(2, [(config, killed)], tmp_path)
    assert [row["step"] for row in read_metrics(killed)] == [1, 2]
    shutil.copytree(killed, tmp_path / "one")
    assert_equal(alone(config, tmp_path / "one"), expected)
    assert_equal(together(4, [(config, killed)], tmp_path)[0], expected)


@pytest.mark.slow
def test_launch_starts_the_ranks_and_names_a_failure(random_pair: Path, tmp_path: Path) -> None:
    config = config_for(random_pair, tmp_path, "opd", launch=Launch(num_processes=2))
    folder = tmp_path / "launched"
    folder.mkdir()
    ranks.launch(config, folder)
    assert_equal(result(folder), alone(config, tmp_path / "alone"))
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint",
        "metrics.jsonl",
        "progress.json",
        "samples.jsonl",
    ]
    broken = dataclasses.replace(
        config, setting=dataclasses.replace(config.setting, prompts=str(tmp_path / "none.jsonl"))
    )
    with pytest.raises(UserError, match=r"there is no file .*none\.jsonl"):  # as without ranks
        ranks.launch(broken, tmp_path)


@pytest.mark.parametrize(
    ("last", "kind"),
    [("harness.errors.UserError: 'x' is no decoder.", UserError), ("ValueError: broken", RuntimeError)],
)
def test_bad_input_of_a_rank_is_bad_input(
    last: str, kind: type[Exception], random_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the rank's name: the sentence is of the models, not of a process. A bug stays one, with its rank."""
    config = dataclasses.replace(config_for(random_pair, tmp_path, "opd"), launch=Launch(num_processes=2))

    def fails(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        (tmp_path / "rank1.log").write_text(f"Traceback\n{last}\n")
        return subprocess.CompletedProcess([], 1)

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(kind) as raised:
        ranks.launch(config, tmp_path)
    assert str(raised.value) == {UserError: "'x' is no decoder.", RuntimeError: f"rank1: {last}"}[kind]
