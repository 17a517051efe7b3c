"""The paper's tables as experiments: their rows are the paper's, and every tiny twin has the same rows and runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from harness.config.methods import find_methods, register_methods
from harness.config.settings import CONF_DIR, RunConfig
from harness.config.sweep import planned_runs
from harness.errors import UserError
from harness.results.reference import load_reference
from harness.training.checks import check_execution
from harness.types import UNTRAINED
from tests.end_to_end.test_command import harness_run

TABLES = ("table1_ablation", "table_outliers", "table_deepseek_single", "table_deepseek_multi", "table_qwen3_multi")
VARIANTS = sorted(path.stem for path in (CONF_DIR / "method").glob("*.yaml"))  # of methods, with a knob changed

# Rows that the paper's table does not print: the second reading of one of its rows, and the teacher where it is left
# out.
OURS = {
    "table1_ablation": {"fkl_direct", "tropd_annealed_maximum", "tropd_uniform", "teacher"},
    "table_outliers": {"teacher"},
}
# Rows that it prints and the experiment leaves out, being about something else than outliers.
LEFT_OUT = {"table_outliers": {"fkl_scalar", "jsd", "entropy_opd"}}


@dataclass(frozen=True)
class Experiment:
    """An experiment as composed."""

    run: RunConfig  # of the configuration before the sweep
    rows: list[str]  # values of `method`
    seeds: list[str]


@lru_cache
def experiment(name: str) -> Experiment:
    register_methods()
    with initialize_config_dir(str(CONF_DIR), version_base=None):
        cfg = compose("config", overrides=[f"experiment={name}"], return_hydra_config=True)
    sweep = cfg.hydra.sweeper.params
    rows, seeds = (["".join(value.split()) for value in str(sweep[axis]).split(",")] for axis in ("method", "seed"))
    return Experiment(
        RunConfig.from_hydra(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])), rows, seeds
    )


@pytest.mark.parametrize("name", TABLES)
def test_rows_exist_and_have_three_seeds(name: str) -> None:
    found = experiment(name)
    assert len(found.rows) == len(set(found.rows))
    assert set(found.rows) <= {*find_methods(), *VARIANTS, *UNTRAINED}
    assert len(found.seeds) >= 3


@pytest.mark.parametrize("name", TABLES)
def test_the_rows_are_the_papers(name: str) -> None:
    """Each row is the published row whose `method` it is; what differs is listed above."""
    found = experiment(name)
    published = [row for row in load_reference() if row.table == found.run.reference]
    labels = {row.method: row.label for row in published if row.method is not None}
    assert len(labels) == len({row.label for row in published})  # every published row has a method of its own
    assert set(found.rows) - set(labels) == OURS.get(name, set())
    assert set(labels) - set(found.rows) == LEFT_OUT.get(name, set())
    assert {row.setting for row in published} == {found.run.setting.name.removesuffix("_standin")}
    assert set(found.run.evaluation.tasks) == {row.benchmark for row in published} - {"average"}


@pytest.mark.parametrize("name", TABLES)
def test_the_tiny_twin_has_the_same_rows(name: str) -> None:
    paper, tiny = experiment(name), experiment(f"{name}_tiny")
    assert (paper.rows, paper.seeds, paper.run.reference) == (tiny.rows, tiny.seeds, tiny.run.reference)
    assert tiny.run.setting.name.startswith("tiny_")


def test_single_domain_twins_share_their_runs() -> None:
    shared = {experiment(f"{name}_tiny").run.comparison_folder() for name in TABLES if "qwen3" not in name}
    assert len(shared) == 1


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_a_method_with_a_knob_changed(name: str) -> None:
    assert name not in find_methods()  # it would hide the method
    register_methods()
    with initialize_config_dir(str(CONF_DIR), version_base=None):
        run = RunConfig.from_hydra(compose("config", overrides=[f"method={name}"]))
    assert name.startswith(run.method_name)
    assert run.changed_knobs()


def test_an_unknown_reference_is_refused() -> None:
    register_methods()
    with pytest.raises(UserError, match=r"reference='table9': must be one of .*table1_ablation"):
        check_execution(planned_runs(["reference=table9", "hydra.mode=RUN"]))


@pytest.mark.slow
def test_every_row_of_every_tiny_twin_trains(tmp_path) -> None:
    for name in TABLES:
        harness_run(
            f"experiment={name}_tiny",
            "seed=0",
            "setting.steps=2",
            "setting.prompts_per_step=8",
            "engine.micro_batch_prompts=8",
            "++evaluation.samples.arithmetic=1",
            f"results_dir={tmp_path}",
        )
        (folder,) = tmp_path.glob(f"{experiment(f'{name}_tiny').run.setting.name}-*")
        table = (folder / "leaderboard.md").read_text()
        for row in experiment(name).rows:
            assert f"| {row.removesuffix('_annealed_maximum').removesuffix('_uniform')}" in table, row


def test_the_regime_map_is_twelve_methods_at_six_rates() -> None:
    register_methods()
    with initialize_config_dir(str(CONF_DIR), version_base=None):
        cfg = compose("config", overrides=["experiment=regime_map", "setting=tiny_latent"], return_hydra_config=True)
    assert cfg.setting.name == "tiny_latent"
    sweep = {key: str(value).split(",") for key, value in cfg.hydra.sweeper.params.items()}
    assert len(set(sweep["method"])) == 12
    assert set(sweep["method"]) <= {*find_methods(), *VARIANTS}
    rates = [float(rate) / cfg.setting.learning_rate for rate in sweep["setting.learning_rate"]]
    assert rates == pytest.approx([1 / 3, 1, 3])
    assert sweep["setting.lr_schedule"] == ["constant", "cosine"]
