"""Configurations: every one that is shipped composes, hashes know what matters and nothing else."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from harness.config.methods import find_methods, register_methods
from harness.config.settings import CONF_DIR, Setting
from harness.config.sweep import planned_runs
from harness.files import ROOT, locate
from harness.types import Method


@pytest.fixture(scope="module", autouse=True)
def _methods() -> None:
    register_methods()


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml") if not path.stem.startswith("_"))


def one(*arguments: str):
    (run,) = planned_runs([*arguments, "hydra.mode=RUN"])
    return run


@pytest.mark.parametrize("name", options("evaluation"))
def test_every_evaluation_composes(name: str) -> None:
    assert one(f"evaluation={name}").evaluation.dev_every > 0


@pytest.mark.parametrize("name", [name for name in options("setting") if name != "custom"])
def test_every_setting_composes(name: str) -> None:
    setting = one(f"setting={name}").setting
    if name.startswith("tiny"):
        assert Path(locate(setting.student)).is_dir()
    assert setting.name == (f"{name}_standin" if setting.notes else name)  # results of other models carry another name


@pytest.mark.parametrize("name", ["deepseek_math", "deepseek_multi", "qwen3_multi"])
def test_the_papers_settings_have_its_numbers(name: str) -> None:
    """arXiv 2606.01249, appendix: 128 x 4 samples of up to 8,096 tokens, 200 steps at a fixed 5e-6; top 64."""
    setting = one(f"setting={name}").setting
    assert (setting.prompts_per_step, setting.samples_per_prompt, setting.max_new_tokens) == (128, 4, 8096)
    assert (setting.steps, setting.learning_rate, setting.lr_schedule, setting.warmup_steps) == (
        200,
        5e-6,
        "constant",
        0,
    )
    assert (setting.top_k, setting.max_grad_norm, setting.weight_decay) == (64, 1.0, 0.1)
    assert (setting.adam_beta1, setting.adam_beta2) == (0.9, 0.999)


def test_stand_ins_are_named() -> None:
    setting = one("setting=qwen3_multi").setting
    assert [setting.student in setting.notes[0], setting.teacher in setting.notes[1]] == [True, True]
    assert one("setting=deepseek_math").setting.notes == []


PUBLISHED = {name: ROOT / "results" / name / "runs.jsonl" for name in ("tiny_cpu", "tiny_latent", "tiny_style")}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_tables_are_of_the_settings_as_they_are(name: str) -> None:
    """The default tables, by hash: of the content of models and prompts, every field and the recipe."""
    published = json.loads(PUBLISHED[name].read_text().split("\n")[0])
    setting = one(f"setting={name}").setting
    assert setting.by_value() == published["setting"]
    assert setting.training_hash() == published["training_hash"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["setting=deepseek_math"], 64),  # 8096 // 32 = 253, at most 64
        (["setting=qwen_gsm8k"], 16),  # 512 // 32
        (["setting=tiny_cpu"], 1),  # 60 // 32
        (["setting=deepseek_math", "setting.max_new_tokens=48"], 1),
        (["setting=deepseek_math", "setting.max_new_tokens=1024"], 32),
        (["setting=tiny_cpu", "setting.min_continuation=5"], 5),
    ],
)
def test_the_continuation_follows_the_length(changes: list[str], expected: int) -> None:
    assert one(*changes).setting.min_continuation == expected


def test_the_default_is_four_methods_on_three_seeds_beside_student_and_teacher() -> None:
    runs = planned_runs([])
    assert {run.method_name for run in runs} == {"student", "teacher", "opd", "eopd", "reopold", "tropd"}
    assert len(runs) == 18
    assert len({run.run_folder() for run in runs}) == 18
    assert len({run.comparison_folder() for run in runs}) == 1


def test_every_knob_is_in_the_configuration() -> None:
    for name, method in find_methods().items():
        assert one(f"method={name}").method == method()


def test_changed_knobs_name_the_folder() -> None:
    plain, changed = one("method=tropd"), one("method=tropd", "method.beta=0.5")
    assert plain.run_folder().parent.name == "tropd"
    assert changed.run_folder().parent.name.startswith("tropd-")
    assert changed.changed_knobs() == {"beta": 0.5}
    assert one("method=tropd", "method.beta=0.001").run_folder() == plain.run_folder()  # the default, said aloud
    assert plain.comparison_folder() == changed.comparison_folder()


CHANGES = {
    "str": "other",
    "int": 7,
    "float": 0.25,
    "str | None": "abc",
    "float | None": 2.0,
    "list[str]": ["a"],
    "dict[str, Any] | None": {"a": 1},
}


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Setting)])
def test_the_hash_knows_every_field_but_name_and_notes(field: str) -> None:
    setting = one().setting
    kind = next(f.type for f in dataclasses.fields(Setting) if f.name == field)
    value = {"lr_schedule": "constant", "dtype": "float64", "termination": "map", "teacher_responses": "shared"}.get(
        field, CHANGES[str(kind)]
    )
    if field in ("temperature", "top_p"):
        return  # no other value is allowed
    if field in ("student_revision", "teacher_revision", "prompts_split"):
        hub = {"student": "some/model", "teacher": "some/model", "prompts": "some/data"}
        setting = dataclasses.replace(setting, **hub)  # a folder on disk has no revision
    changed = dataclasses.replace(setting, **{field: value})
    assert (changed.training_hash() == setting.training_hash()) == (field in ("name", "notes"))


def test_the_hash_knows_content_not_paths(tmp_path: Path) -> None:
    setting = one().setting
    for name in ("student", "teacher"):
        shutil.copytree(ROOT / getattr(setting, name), tmp_path / name)
    shutil.copy(ROOT / setting.prompts, tmp_path / "p.jsonl")
    moved = dataclasses.replace(
        setting, student=str(tmp_path / "student"), teacher=str(tmp_path / "teacher"), prompts=str(tmp_path / "p.jsonl")
    )
    assert moved.training_hash() == setting.training_hash()
    with (tmp_path / "p.jsonl").open("a") as prompts:
        prompts.write('{"prompt": "one more"}\n')
    assert moved.training_hash() != setting.training_hash()


def test_a_folder_without_a_recipe_is_known_by_its_weights(random_pair: Path, tmp_path: Path) -> None:
    shutil.copytree(random_pair / "student", tmp_path / "copy")
    setting = dataclasses.replace(one().setting, student=str(random_pair / "student"))
    copied = dataclasses.replace(setting, student=str(tmp_path / "copy"))
    assert copied.training_hash() == setting.training_hash()
    weights = tmp_path / "copy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert copied.training_hash() != setting.training_hash()


def test_seed_engine_and_evaluation_are_not_in_the_hash() -> None:
    reference = one().comparison_folder()
    assert one("seed=5").comparison_folder() == reference
    assert one("engine.micro_batch_prompts=8", "engine.threads=2").comparison_folder() == reference
    assert one("evaluation=none").comparison_folder() == reference


def test_methods_are_dataclasses_with_defaults() -> None:
    for method in find_methods().values():
        assert isinstance(method(), Method)
