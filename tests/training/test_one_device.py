"""What a run must not do to the GPUs of its machine, nor to the next run of its process."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from baselines.opd import OPD
from harness.config.settings import RunConfig
from harness.results.record import read_metrics
from harness.training import arguments, job
from harness.training import train as training
from harness.training.arguments import training_arguments
from tests.conftest import execution
from tests.training.test_step import config_for, run


@pytest.fixture
def two_visible_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Trainer asks how many devices there are; it works on the CPU all the same."""
    original = arguments.TrainingArguments
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(arguments, "TrainingArguments", lambda **given: original(**{**given, "use_cpu": False}))


def test_a_process_uses_one_of_several_visible_gpus(two_visible_gpus, random_pair: Path, tmp_path: Path) -> None:
    """Otherwise nn.DataParallel takes the student, and a step has twice the Setting's prompts."""
    config = config_for(random_pair, tmp_path, OPD(), micro_batch_prompts=2)
    made = training_arguments(config.setting, execution(device="auto", micro_batch_prompts=2), 0, tmp_path)
    assert (made.n_gpu, made.train_batch_size) == (1, 2)
    _, rows = run(config, tmp_path / "run")
    assert len(rows) == config.setting.steps
    assert all(row["tokens/scored"] <= 8 * 16 for row in rows)  # 8 prompts of at most 16 tokens


@pytest.mark.parametrize("before", ["highest", "high"])
def test_every_run_sets_its_own_precision(random_pair: Path, tmp_path: Path, before: str) -> None:
    """A bfloat16 run leaves TF32 behind, which a float32 run of the same process must not compute in."""
    for dtype, expected in (("bfloat16", "high"), ("float32", "highest"), ("float64", "highest")):
        torch.set_float32_matmul_precision(before)
        training.load_models(config_for(random_pair, tmp_path, OPD(), dtype=dtype))
        assert torch.get_float32_matmul_precision() == expected


def test_an_evaluation_alone_sets_its_precision(random_pair: Path, tmp_path: Path) -> None:
    """Otherwise a checkpoint's score would depend on whether it was trained in the same process."""
    for dtype, expected in (("bfloat16", "high"), ("float32", "highest")):
        config = dataclasses.replace(config_for(random_pair, tmp_path, None, dtype=dtype), method_name="student")
        torch.set_float32_matmul_precision("highest" if expected == "high" else "high")
        source = job.Source(config.setting.student, None, dtype)
        with job.open_engine(config.engine, source, 64, tmp_path, longest=64, role="evaluation"):
            assert torch.get_float32_matmul_precision() == expected


def named(config: RunConfig) -> RunConfig:
    """By the name of its file, which a record wants."""
    return dataclasses.replace(config, method_name="opd")


def test_nothing_of_the_training_is_left_when_the_evaluation_begins(
    random_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Student, teacher and optimiser are in circles of references: the collector frees them, once it is called."""
    seen: dict[str, weakref.ref[Any]] = {}
    load, adam = training.load_models, torch.optim.AdamW.__init__

    def loaded(config: Any) -> Any:
        models = load(config)
        seen.update(student=weakref.ref(models.student), teacher=weakref.ref(models.teacher))
        return models

    def made(self: Any, *given: Any, **options: Any) -> None:
        adam(self, *given, **options)
        seen["optimizer"] = weakref.ref(self)

    alive: list[list[str]] = []

    def evaluate(*given: Any) -> Any:
        alive.append([name for name, found in seen.items() if found() is not None])
        return given[2]

    monkeypatch.setattr(training, "load_models", loaded)
    monkeypatch.setattr(torch.optim.AdamW, "__init__", made)
    monkeypatch.setattr(job, "_evaluate", evaluate)
    gc.disable()  # nobody else collects in between
    try:
        job.run_job(named(config_for(random_pair, tmp_path, OPD())))
    finally:
        gc.enable()
    assert seen.keys() == {"student", "teacher", "optimizer"}
    assert alive == [[]]


def test_the_peak_of_a_gpu_is_recorded(random_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the card that held most, in every step's row and in the record; without a GPU neither has it."""
    monkeypatch.setattr(job, "_evaluate", lambda *given: dataclasses.replace(given[2], status="completed"))
    plain = job.run_job(named(config_for(random_pair, tmp_path, OPD())))
    assert plain.counters.peak_gpu_memory_bytes == 0
    with a_gpu_that_held({0: 5, 1: 7}, monkeypatch) as resets:
        config = named(config_for(random_pair, tmp_path, OPD(), seed=1))
        record = job.run_job(config)
    rows = read_metrics(config.run_folder())
    assert [row["memory/gpu_peak_bytes"] for row in rows] == [7] * len(rows)
    assert record.counters.peak_gpu_memory_bytes == 7 and record.counters.peak_memory_bytes > 7
    assert resets == [0, 1]


@contextmanager
def a_gpu_that_held(reserved: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    resets: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_initialized", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: len(reserved))
        patch.setattr(torch.cuda, "max_memory_reserved", reserved.__getitem__)
        patch.setattr(torch.cuda, "reset_peak_memory_stats", resets.append)
        patch.setattr(torch.cuda, "empty_cache", lambda: None)
        yield resets


@pytest.mark.parametrize(
    ("available", "device", "optim"),
    [(True, "auto", "adamw_torch_fused"), (True, "cpu", "adamw_torch"), (False, "auto", "adamw_torch")],
)
def test_adamw_is_fused_on_a_gpu(
    random_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available: bool, device: str, optim: str
) -> None:
    """One kernel for all weights in place of some for each."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    made = SimpleNamespace(n_gpu=4)
    monkeypatch.setattr(arguments, "TrainingArguments", lambda **given: told.append(given) or made)
    setting = config_for(random_pair, tmp_path, OPD()).setting
    assert training_arguments(setting, execution(device=device), 0, tmp_path)._n_gpu == 1
    assert (told[0]["optim"], told[0]["use_cpu"]) == (optim, optim == "adamw_torch")
