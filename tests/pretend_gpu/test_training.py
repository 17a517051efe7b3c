"""Every method and every way of executing a run, trained by the real Trainer on a pretended GPU: no tensors of two
devices meet, and the numbers are those of a CPU run.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from baselines.eopd import EOPD
from baselines.gkd import GKD
from baselines.opd import OPD
from baselines.seqkd import SeqKD
from baselines.tropd import TrOPD
from harness.config.methods import find_methods
from harness.config.settings import RunConfig
from harness.console.progress import RunProgress
from harness.results.record import read_metrics
from harness.training.train import train
from harness.types import Method
from tests.distributed.test_ranks import config_for
from tests.pretend_gpu.training import train_on

FAST = ("opd", "tropd")  # of the methods, in `make test`
METHODS = [
    pytest.param(method, id=name, marks=() if name in FAST else pytest.mark.slow)
    for name, method in sorted(find_methods().items())
]


def gpu_config(random_pair: Path, root: Path, method: type[Method] | Method, **changes: Any) -> RunConfig:
    """Two steps of four ragged prompts with references, two samples each, two prompts a micro-batch."""
    made = method if isinstance(method, Method) else method()
    texts = [f"Start with {i} , add {i % 7} ." + " What is the result ?" * (i % 2) for i in range(8)]
    rows = [{"id": str(i), "prompt": text, "reference": "7"} for i, text in enumerate(texts)]
    (root / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = config_for(random_pair, root, "opd")
    setting = dataclasses.replace(
        base.setting, steps=2, prompts_per_step=4, max_new_tokens=8, **changes.get("setting", {})
    )
    engine_fields = {key: value for key, value in changes.items() if key != "setting"}
    engine = dataclasses.replace(base.engine, **{"device": "cuda", "micro_batch_prompts": 2, **engine_fields})
    return dataclasses.replace(base, setting=setting, method=made, method_name="test", engine=engine)


def assert_same_as_on_the_cpu(config: RunConfig, folder: Path) -> None:
    """Every metric but seconds and bytes."""
    on_cpu = dataclasses.replace(config, engine=dataclasses.replace(config.engine, device="cpu", teacher_device=None))
    (folder / "cpu").mkdir(parents=True)
    train(on_cpu, folder / "cpu", RunProgress(None, config.setting.steps))
    found, expected = read_metrics(folder), read_metrics(folder / "cpu")
    assert len(found) == len(expected) == config.setting.steps
    for mine, truth in zip(found, expected, strict=True):
        assert mine.keys() - _costs(mine) == truth.keys() - _costs(truth)
        for key in truth.keys() - _costs(truth):
            assert mine[key] == pytest.approx(truth[key], rel=1e-9, abs=1e-9), key


def _costs(row: dict[str, Any]) -> set[str]:
    return {key for key in row if key.startswith(("time/", "memory/"))}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_on_one_device(random_pair: Path, tmp_path: Path, method: type[Method]) -> None:
    gpu, _ = train_on(gpu_config(random_pair, tmp_path, method), tmp_path / "run")
    assert gpu.launches > 1000  # the models are on it
    assert len(read_metrics(tmp_path / "run")) == 2
    if method in (OPD, TrOPD, GKD):
        assert_same_as_on_the_cpu(gpu_config(random_pair, tmp_path, method), tmp_path / "run")


WHOLE_VOCABULARY = GKD(student_share=1.0)  # on the student's own samples
OPTIONS: dict[str, tuple[Method, dict[str, Any]]] = {
    "bfloat16, checkpointing": (TrOPD(), {"setting": {"dtype": "bfloat16"}, "gradient_checkpointing": True}),
    "lora": (TrOPD(), {"setting": {"lora_rank": 4}}),
    "importance cap": (TrOPD(), {"setting": {"importance_cap": 2.0, "dtype": "bfloat16"}}),
    "several ends as one": (TrOPD(), {"setting": {"termination": "map"}}),
    "sub-batches": (TrOPD(), {"rows_per_batch": 3}),
    "one prompt a micro-batch": (EOPD(), {"micro_batch_prompts": 1}),
    "no guidance": (TrOPD(prefix_schedule="none"), {}),
    "given text": (SeqKD(), {}),
    "overlap": (TrOPD(), {"overlap": True}),
    "overlap, whole vocabulary": (WHOLE_VOCABULARY, {"overlap": True}),
    **{
        f"{name}, teacher on {device}{', overlap' * overlap}": (method, {"teacher_device": device, "overlap": overlap})
        for name, method in {"tropd": TrOPD(), "eopd": EOPD(entropy_threshold=2.5), "gkd": WHOLE_VOCABULARY}.items()
        for device in ("cpu", "cuda:1")
        for overlap in (False, True)
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_every_way_of_executing_trains(random_pair: Path, tmp_path: Path, name: str) -> None:
    method, changes = OPTIONS[name]
    config = gpu_config(random_pair, tmp_path, method, **changes)
    gpu, _ = train_on(config, tmp_path / "run")
    assert gpu.launches > 1000
    if config.setting.dtype == "float64":
        assert_same_as_on_the_cpu(config, tmp_path / "run")
