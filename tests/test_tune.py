"""Tuning: as many trials for every method, on development problems, with a seed of its own; and tables of own best
rates.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.config.methods import register_methods
from harness.config.sweep import planned_runs
from harness.errors import UserError
from harness.files import ROOT
from harness.own_rates import main as own_rates
from harness.results.collect import load_records, publish_records
from harness.results.record import Counters
from harness.results.tuning import summarise, write_summary
from harness.tune import main, parse, trial_arguments
from tests.end_to_end.test_command import SMALL
from tests.results.synthetic import run

COUNTERS = Counters(steps=5, student_tokens=100, rollout_s=1.0, scoring_s=0.5, update_s=0.25)


def trial(method: str, rate: float, successes: int, seed: int = 100, **changes):
    """One run of ten problems and four samples, each problem solved `successes` times."""
    setting = {"name": "tiny", "learning_rate": rate, "steps": 5, "student": "s", "teacher": "t", "notes": []}
    return run(method, seed, [successes] * 10, setting=setting, counters=COUNTERS, training_hash=f"{rate}", **changes)


TRIALS = [trial("opd", 1e-4, 1), trial("opd", 3e-4, 2), trial("opd", 1e-3, 4)]
TRIALS += [trial("tropd", 1e-4, 2), trial("tropd", 3e-4, 3), trial("tropd", 1e-3, 0)]


def test_the_best_rates() -> None:
    """Means over the methods: (1+2)/2, (2+3)/2 and (4+0)/2 of four."""
    tuned, partial = summarise([*TRIALS, trial("eopd", 1e-4, 4), trial("student", 1e-4, 4)])
    assert {label: (t.best, t.at_edge, t.trials) for label, t in tuned.items()} == {
        "opd": (1e-3, True, 3),
        "tropd": (3e-4, False, 3),
    }
    assert partial == {"eopd": 1}  # compared with nobody: it had fewer trials
    assert (tuned["opd"].student_tokens, tuned["opd"].seconds) == (300, 5.2)


def test_a_failed_trial_is_no_trial() -> None:
    failed = dataclasses.replace(TRIALS[-1], status="failed", evaluations=())
    tuned, partial = summarise([*TRIALS[:-1], failed])
    assert list(tuned) == ["opd"] and partial == {"tropd": 2}


def test_the_summary(tmp_path: Path) -> None:
    write_summary(tmp_path, "tiny", TRIALS)
    content = yaml.safe_load((tmp_path / "tiny.yaml").read_text())
    assert (content["grid"], content["best_for_all"], content["seed"]) == ([1e-4, 3e-4, 1e-3], 3e-4, 100)
    assert content["methods"]["tropd"]["scores"] == {1e-4: 0.5, 3e-4: 0.75, 1e-3: 0.0}
    assert "| opd | 25.0 | 50.0 | 100.0 | 0.001 (end of the grid) | 3 | 300 | 5 |" in (tmp_path / "tiny.md").read_text()
    decoded = [
        dataclasses.replace(r, evaluations=tuple(dataclasses.replace(e, decoding="paper") for e in r.evaluations))
        for r in TRIALS
    ]
    write_summary(tmp_path, "decoded", decoded)
    assert ", paper decoding), one trial a method and rate, seed 100." in (tmp_path / "decoded.md").read_text()
    with pytest.raises(UserError, match="different development tasks"):
        write_summary(tmp_path, "mixed", [*TRIALS[:3], *decoded[3:]])
    with pytest.raises(UserError, match="different seeds"):
        write_summary(tmp_path, "tiny", [*TRIALS, trial("opd", 1e-4, 1, seed=101)])


@pytest.mark.parametrize("name", ["tiny_cpu", "tiny_latent", "tiny_style"])
def test_the_published_summaries_are_what_their_trials_say(name: str, tmp_path: Path) -> None:
    folder = ROOT / "results" / "tuning"
    write_summary(tmp_path, name, [r for f in sorted(folder.glob(f"{name}_lr*/")) for r in load_records(f)])
    for kind in ("yaml", "md"):
        assert (tmp_path / f"{name}.{kind}").read_text() == (folder / f"{name}.{kind}").read_text()


def test_the_rate_of_the_tiny_settings_is_the_chosen_one() -> None:
    """docs/tiny_models.md: one rate for all, the best over methods and settings; and what it says of others."""
    names, grid = ("tiny_cpu", "tiny_latent", "tiny_style"), (3e-4, 6e-4, 1e-3)
    tuned = {name: yaml.safe_load((ROOT / "results" / "tuning" / f"{name}.yaml").read_text()) for name in names}
    assert {(t["decoding"], tuple(t["grid"]), tuple(t["methods"])) for t in tuned.values()} == {
        ("paper", grid, ("eopd", "opd", "reopold", "tropd"))
    }

    def mean(rate: float, *settings: str) -> float:
        scores = [entry["scores"][rate] for name in settings for entry in tuned[name]["methods"].values()]
        return 100 * sum(scores) / len(scores)

    tropd = {name: tuned[name]["methods"]["tropd"] for name in names}
    assert max(grid, key=lambda rate: mean(rate, *names)) == 6e-4
    assert all(entry["scores"][1e-3] < entry["scores"][entry["best"]] for entry in tropd.values())
    page = " ".join((ROOT / "docs" / "tiny_models.md").read_text(encoding="utf-8").split())
    slow, base, fast = (f"{mean(rate, *names):.1f}" for rate in grid)
    assert f"{base} % against {slow} and {fast}" in page
    style, cpu = ([f"{mean(rate, name):.1f}" for rate in (1e-3, 6e-4)] for name in ("tiny_style", "tiny_cpu"))
    assert (
        f"in `tiny_style` 1e-3 has {style[0]} % where 6e-4 has {style[1]}, in `tiny_cpu` {cpu[0]} and {cpu[1]}" in page
    )
    assert f"in `tiny_latent` to {100 * tropd['tiny_latent']['scores'][1e-3]:.1f} %" in page


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("seed=3", "seeds below 100 are for tables"),
        ("rates=a,b", "must be positive numbers"),
        ("rates=0", "must be positive"),
        ("setting.learning_rate=1", "this command sets it"),
        ("evaluation.dev_task=null", "evaluation.dev_task is not set"),
        ("setting=nope", "there is no"),
    ],
)
def test_bad_input(argument: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([argument]) == 2
    assert message in capsys.readouterr().err


def test_options_are_taken_out() -> None:
    options = parse(["method=opd", "rates=1e-3,1e-4", "setting=tiny_style"])
    assert (options.rates, options.seed, options.overrides) == ((1e-4, 1e-3), 100, ("method=opd", "setting=tiny_style"))


def test_own_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_summary(tmp_path, "tiny", TRIALS)
    for rate in (3e-4, 1e-3):
        records = [trial(m, rate, 1 + (m == "tropd"), seed) for m in ("opd", "tropd") for seed in (0, 1)]
        publish_records(tmp_path / f"{rate}" / "runs.jsonl", records)
    assert own_rates([str(tmp_path / "tiny.yaml"), str(tmp_path / "0.0003"), str(tmp_path / "0.001")]) == 0
    text = capsys.readouterr().out
    assert "each method has its own best" in text
    assert "| tropd | 0.0003 | 0, 1 | 50.0 [" in text and "| opd | 0.001 (end of the grid) | 0, 1 | 25.0 [" in text
    assert "| +25.0 [" in text
    assert own_rates([str(tmp_path / "tiny.yaml"), str(tmp_path / "0.0003")]) == 2
    assert "no run of opd at its own best rate 0.001" in capsys.readouterr().err
    publish_records(tmp_path / "tuned" / "runs.jsonl", [TRIALS[2], TRIALS[4]])
    assert own_rates([str(tmp_path / "tiny.yaml"), str(tmp_path / "tuned")]) == 2
    assert "which the rates were chosen on" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_trains_and_summarises(tmp_path: Path) -> None:
    small = [*SMALL, "setting.steps=2", "++evaluation.samples.arithmetic_dev=1"]
    small.remove("setting.steps=4")
    places = [f"output={tmp_path / 'tuning'}", f"results_dir={tmp_path / 'runs'}"]
    command = [sys.executable, "-m", "harness.tune", "method=opd", "rates=1e-3", *places, *small]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    content = yaml.safe_load((tmp_path / "tuning" / "tiny_cpu.yaml").read_text())
    assert (content["grid"], list(content["methods"]), content["task"]) == ([1e-3], ["opd"], "arithmetic_dev")
    assert (tmp_path / "tuning" / "tiny_cpu_lr0.001" / "runs.jsonl").is_file()
    assert "own best" in done.stdout


def test_every_method_gets_every_rate(tmp_path: Path) -> None:
    """The sweep that harness.run gets: a third, one and three times the setting's rate, on the
    development task alone.
    """
    register_methods()
    options = parse(["method=opd,tropd", "setting=tiny_latent"])
    (base,) = planned_runs(["setting=tiny_latent", "method=opd", "hydra.mode=RUN"])
    runs = planned_runs(trial_arguments(options, base))
    assert {(r.method_name, r.setting.learning_rate) for r in runs} == {
        (method, rate) for method in ("opd", "tropd") for rate in (2e-4, 6e-4, 1.8e-3)
    }
    assert {(r.seed, *r.evaluation.tasks, r.evaluation.dev_task) for r in runs} == {(100, "arithmetic_dev", None)}
    assert {tuple(r.evaluation.decodings_of("arithmetic_dev")) for r in runs} == {("paper",)}  # as tables are ordered
