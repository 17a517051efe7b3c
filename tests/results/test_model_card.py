"""The card of a checkpoint: valid for the Hub's library, current with the record, and its command
makes the same run.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM

from harness.config.methods import register_methods
from harness.config.settings import RunConfig
from harness.config.sweep import planned_runs
from harness.results.model_card import build_card, write_card
from harness.results.record import Evaluation, RunRecord
from harness.results.render import format_interval
from harness.results.statistics import mean_interval

SCORED = Evaluation("arithmetic", "p" * 64, 4, 4, 7 / 16, 0.125, 20.0, (0, 1, 4, 2), majority=(0, 0, 1, 1))


@pytest.fixture(scope="module")
def config() -> RunConfig:
    register_methods()
    (run,) = planned_runs(["method=tropd", "method.beta=0.5", "seed=3", "setting.steps=7", "hydra.mode=RUN"])
    return run


def record_of(config: RunConfig, **changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "method": config.method_name,
        "knobs": config.knobs(),
        "changed_knobs": config.changed_knobs(),
        "setting": dataclasses.asdict(config.setting),
        "training_hash": config.setting.training_hash(),
        "seed": config.seed,
        "status": "completed",
        "evaluations": (SCORED,),
        "provenance": {"commit": "abc", "versions": {"torch": "2.13.0"}, "hardware": "a processor"},
    }
    return RunRecord(**{**values, **changes})


def test_the_hub_library_reads_what_was_written(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    write_card(tmp_path, record_of(config))
    card = ModelCard.load(tmp_path / "checkpoint" / "README.md")
    data = card.data.to_dict()
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "text-generation")
    assert "tropd" in data["tags"] and "base_model" not in data  # a folder is no model of the Hub
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("arithmetic", "accuracy", 43.75)
    assert str(ModelCard(str(card))) == str(card)
    interval = format_interval(mean_interval([[0, 0.25, 1, 0.5]])).rstrip("†")
    passed, voted = (format_interval(mean_interval([row])).rstrip("†") for row in ([0, 1, 1, 1], [0, 0, 1, 1]))
    assert f"| arithmetic | 4 × 4 | {interval} | {passed} | {voted} | 12.5 | `pppppppppppp` |" in card.text
    for part in ("| method.beta | 0.5 |", "| setting.steps | 7 |", config.setting.training_hash(), "| commit | abc |"):
        assert part in card.text


def test_models_of_the_hub_are_named_in_the_metadata(config: RunConfig) -> None:
    setting = {**dataclasses.asdict(config.setting), "student": "Qwen/Qwen3-1.7B", "prompts": "open-r1/DAPO-Math-17k"}
    data = build_card(record_of(config, setting=setting)).data
    assert (data.base_model, data.datasets) == ("Qwen/Qwen3-1.7B", ["open-r1/DAPO-Math-17k"])


def _command_of(text: str) -> list[str]:
    """The arguments of harness.run in a card."""
    command = re.search(r"```bash\n(.*?)```", text, re.S)
    assert command is not None
    (*start,) = shlex.split(command[1].replace("\\\n", " "))
    assert start[:3] == ["python", "-m", "harness.run"]
    return start[3:]


@pytest.mark.parametrize(
    "variables", [None, {"enable_thinking": False, "style": "a, 'b' = \u00fc", "tools": ["x", 1, None]}]
)
def test_its_command_is_the_run(config: RunConfig, variables: dict[str, Any] | None) -> None:
    config = dataclasses.replace(config, setting=dataclasses.replace(config.setting, chat_template_kwargs=variables))
    (again,) = planned_runs(_command_of(build_card(record_of(config)).text))
    assert again.setting == config.setting and again.method == config.method and again.seed == config.seed
    assert again.run_folder() == config.run_folder()
    assert again.evaluation.tasks == ["arithmetic"]


def test_its_command_has_the_decodings(config: RunConfig) -> None:
    named = tuple(dataclasses.replace(SCORED, decoding=name) for name in ("greedy", "sampled"))
    card = build_card(record_of(config, evaluations=named))
    assert "| arithmetic, sampled | 4 × 4 |" in card.text
    assert [result.metric_name for result in card.data.eval_results] == ["avg@4, greedy, %", "avg@4, sampled, %"]
    (again,) = planned_runs(_command_of(card.text))
    assert again.evaluation.decodings == {"arithmetic": ["greedy", "sampled"]}
    (plain,) = planned_runs(_command_of(build_card(record_of(config)).text))
    assert plain.evaluation.decodings_of("arithmetic") == []


def test_rewritten_when_the_scores_change_and_only_then(config: RunConfig, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint" / "README.md"
    write_card(tmp_path, record_of(config))
    assert not path.exists()  # no checkpoint: nothing to describe
    path.parent.mkdir()
    write_card(tmp_path, record_of(config, status="failed"))
    assert not path.exists()
    write_card(tmp_path, record_of(config, evaluations=()))
    assert "Not evaluated." in path.read_text()
    before = path.stat().st_mtime_ns
    write_card(tmp_path, record_of(config, evaluations=()))
    assert path.stat().st_mtime_ns == before
    write_card(tmp_path, record_of(config))
    assert "| arithmetic |" in path.read_text()


def test_a_checkpoint_with_its_card_loads(random_pair: Path, tmp_path: Path, config: RunConfig) -> None:
    model = AutoModelForCausalLM.from_pretrained(random_pair / "student")
    model.save_pretrained(tmp_path / "checkpoint")
    write_card(tmp_path, record_of(config))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint")
    assert again.num_parameters() == model.num_parameters()
