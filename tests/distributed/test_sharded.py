"""The real Trainer on a student that FSDP2 cuts over two ranks: adapters, a development task, and going on."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from harness.config.settings import RunConfig
from harness.errors import UserError
from harness.models.loading import load_model
from harness.results.record import read_metrics
from tests.distributed.test_ranks import alone, assert_equal, config_for, on_ranks, result

pytestmark = pytest.mark.slow


def sharded(config: RunConfig, folder: Path, root: Path, count: int = 2) -> None:
    on_ranks(count, "fsdp2_trainer.py", [(config, folder)], root)


def test_adapters_are_merged_into_what_is_saved(random_pair: Path, tmp_path: Path) -> None:
    """Saved as they are, a reload would take their projections for new ones, at random."""
    config = config_for(random_pair, tmp_path, "tropd")
    config = dataclasses.replace(config, setting=dataclasses.replace(config.setting, lora_rank=4, learning_rate=1e-2))
    sharded(config, tmp_path / "sharded", tmp_path)
    found, expected = result(tmp_path / "sharded"), alone(config, tmp_path / "alone")
    assert_equal(found, expected)
    start = load_model(config.setting.student, dtype="float64").state_dict()
    moved = [name for name, value in found[0].items() if not torch.equal(value, start[name])]
    assert any("q_proj" in name for name in moved) and not any("embed" in name for name in moved)


def test_a_development_task_is_scored_on_whole_weights(random_pair: Path, tmp_path: Path) -> None:
    """Rank 0 alone samples: every rank gathers for it."""
    config = config_for(random_pair, tmp_path, "opd")
    task = {"dev_task": "arithmetic_dev", "dev_every": 2}
    small = {"samples": {"arithmetic_dev": 1}, "max_new_tokens": {"arithmetic_dev": 8}}
    config = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, **task, **small))
    sharded(config, tmp_path / "sharded", tmp_path)
    found, expected = result(tmp_path / "sharded"), alone(config, tmp_path / "alone")
    assert_equal(found, expected)
    assert [row["step"] for row in found[1] if "eval/arithmetic_dev" in row] == [2, 3]
    assert found[1][0]["start/arithmetic_dev"] == expected[1][0]["start/arithmetic_dev"]


def test_a_run_goes_on_on_two_ranks_and_on_four(random_pair: Path, tmp_path: Path) -> None:
    """With the same numbers: what is saved is whole. Not on weights that are not cut, for which accelerate stores it
    otherwise.
    """
    config = config_for(random_pair, tmp_path, "tropd", save_every=1)
    killed = tmp_path / "killed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STOP_AFTER_STEP", "2")
        with pytest.raises(AssertionError, match="stopped on purpose"):
            sharded(config, killed, tmp_path)
    assert [row["step"] for row in read_metrics(killed)] == [1, 2]
    shutil.copytree(killed, tmp_path / "again")
    expected = alone(config, tmp_path / "alone")
    sharded(config, tmp_path / "again", tmp_path)
    assert_equal(result(tmp_path / "again"), expected)
    shutil.copytree(killed, tmp_path / "four")
    sharded(config, tmp_path / "four", tmp_path, count=4)
    assert_equal(result(tmp_path / "four"), expected)
    with pytest.raises(UserError, match=r"checkpoint-2 was saved with the weights cut over ranks by FSDP2 .* whole"):
        alone(config, killed)
