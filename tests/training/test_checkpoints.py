"""A run goes on from what it saved, or from what it saved before, and never from what was damaged: same numbers."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.opd import OPD
from harness.config.settings import RunConfig
from harness.console.progress import RunProgress
from harness.errors import UserError
from harness.models.loading import load_model
from harness.results.record import read_metrics
from harness.results.seal import MARKER, check_seal, damage_of, seal
from harness.training.train import train
from harness.training.trainer import DistillationTrainer
from tests.training.test_step import config_for

NEWEST = "trainer/checkpoint-3"
CLOCKS = ("time/", "memory/")
Outcome = tuple[dict[str, torch.Tensor], list[dict[str, Any]]]  # weights, rows without clocks


def flip(path: Path, share: float = 0.5) -> None:
    """Turns one bit over, in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1
    path.write_bytes(content)


def without_line(path: Path, number: int) -> None:
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(lines[:number] + lines[number + 1 :]))


def with_line_twice(path: Path, number: int) -> None:
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[: number + 1], *lines[number:]]))


def another_number(path: Path) -> None:
    """A digit more in the last row, which leaves it valid."""
    path.write_text(path.read_text().replace('"step": 3, "grad_norm": ', '"step": 3, "grad_norm": 1'))


def go_on(config: RunConfig, folder: Path) -> Outcome:
    train(config, folder, RunProgress(None, config.setting.steps))
    rows = [{k: v for k, v in row.items() if not k.startswith(CLOCKS)} for row in read_metrics(folder)]
    return load_model(str(folder / "checkpoint"), dtype="float64").state_dict(), rows


def assert_equal(found: Outcome, truth: Outcome) -> None:
    """To float64's rounding: weights that were loaded lie elsewhere in memory, which changes the order of sums."""
    assert [row["step"] for row in found[1]] == [1, 2, 3, 4]
    for mine, row in zip(found[1], truth[1], strict=True):
        assert mine == pytest.approx(row, rel=1e-9, abs=1e-12)
    for name, value in truth[0].items():
        torch.testing.assert_close(found[0][name], value, rtol=0, atol=1e-12, msg=name)


@pytest.fixture(scope="module")
def stopped(random_pair: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Path, Any]:
    """A run of four steps that was stopped in its fourth, with checkpoints of the second and third; and its truth."""
    home = tmp_path_factory.mktemp("stopped")
    config = config_for(random_pair, home, OPD(), steps=4, dtype="float64")
    config = dataclasses.replace(config, engine=dataclasses.replace(config.engine, save_every=1))
    (home / "whole").mkdir()
    truth = go_on(config, home / "whole")
    original = DistillationTrainer.get_batch_samples

    def dies(self: DistillationTrainer, *arguments: Any) -> Any:
        if self.state.global_step == 3:
            raise InterruptedError
        return original(self, *arguments)

    (home / "killed").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistillationTrainer, "get_batch_samples", dies)
        with pytest.raises(InterruptedError):
            train(config, home / "killed", RunProgress(None, 4))
    assert sorted(path.name for path in (home / "killed" / "trainer").iterdir()) == ["checkpoint-2", "checkpoint-3"]
    return config, home / "killed", truth


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "weights": (lambda run: flip(run / NEWEST / "model.safetensors", 0.9), "model.safetensors is not what was saved"),
    "optimizer": (lambda run: flip(run / NEWEST / "optimizer.pt"), "optimizer.pt is not what was saved"),
    "scheduler": (lambda run: (run / NEWEST / "scheduler.pt").unlink(), "scheduler.pt is missing"),
    "state": (lambda run: flip(run / NEWEST / "trainer_state.json"), "trainer_state.json is not what was saved"),
    "marker": (lambda run: flip(run / NEWEST / MARKER, 0.0), "complete cannot be read"),
    "number": (lambda run: another_number(run / "metrics.jsonl"), "the rows of metrics.jsonl that belong to it"),
    "last row": (lambda run: without_line(run / "metrics.jsonl", 2), "the rows of metrics.jsonl that belong to it"),
    "sample": (lambda run: without_line(run / "samples.jsonl", 2), "the rows of samples.jsonl that belong to it"),
}

QUICK = ("weights", "scheduler", "last row")


@pytest.mark.parametrize(
    "kind", [None, *(pytest.param(kind, marks=[pytest.mark.slow] * (kind not in QUICK)) for kind in DAMAGES)]
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    stopped: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str | None
) -> None:
    config, killed, truth = stopped
    run = tmp_path / "run"
    shutil.copytree(killed, run)
    said = ""
    if kind is not None:
        damage, said = DAMAGES[kind]
        damage(run)
    again = go_on(config, run)
    assert_equal(again, truth)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == (kind is not None)
    assert all(said in line and "checkpoint-3" in line and "before it" in line for line in warnings)


def test_without_a_whole_checkpoint_it_begins_again(
    stopped: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, killed, truth = stopped
    run = tmp_path / "run"
    shutil.copytree(killed, run)
    for path in run.glob("trainer/*/optimizer.pt"):
        path.write_bytes(b"")
    again = go_on(config, run)
    assert_equal(again, truth)
    assert capsys.readouterr().err.count("optimizer.pt is not what was saved") == 2


@pytest.mark.parametrize(("change", "said"), [(without_line, "step 3 where step 2"), (with_line_twice, "step 2 where")])
def test_a_row_in_the_middle_that_is_gone_or_doubled_is_named(
    stopped: Any, tmp_path: Path, change: Callable[[Path, int], None], said: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped[1], run)
    change(run / "metrics.jsonl", 1)
    with pytest.raises(UserError, match=rf"metrics.jsonl, line \d: {said}.*; delete the folder"):
        read_metrics(run)


def test_a_checkpoint_of_an_earlier_version_is_taken_with_a_word(
    stopped: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, killed, truth = stopped
    run = tmp_path / "run"
    shutil.copytree(killed, run)
    (run / NEWEST / MARKER).write_text("")
    again = go_on(config, run)
    assert_equal(again, truth)
    assert "checkpoint-3 was saved without digests: its content is not checked" in capsys.readouterr().err


def test_the_final_checkpoint_is_sealed_too(stopped: Any, tmp_path: Path) -> None:
    _, killed, _ = stopped
    whole = tmp_path / "checkpoint"
    shutil.copytree(killed.parent / "whole" / "checkpoint", whole)
    assert damage_of(whole) == ""
    (whole / "README.md").write_text("what is put beside it afterwards is no damage")
    check_seal(whole, "way out")
    flip(whole / "model.safetensors", 0.9)
    with pytest.raises(UserError, match=r"checkpoint is damaged: model.safetensors is not what was saved; way out\."):
        check_seal(whole, "way out")


def test_a_seal_covers_folders_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a" / "shards").mkdir(parents=True)
    (tmp_path / "a" / "shards" / "1").write_text("x")
    seal(tmp_path / "a")
    assert damage_of(tmp_path / "a") == ""
    (tmp_path / "a" / "shards" / "1").write_text("y")
    assert damage_of(tmp_path / "a") == "shards/1 is not what was saved"
