"""A new user's first hour on a terminal: the commands of the README, a pair of one's own, few problems, a typing error,
Ctrl-C and going on.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from harness.files import ROOT
from harness.results.record import read_metrics
from tests.end_to_end.terminal import on_terminal

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
TROUBLE = re.compile(r"Traceback|resource_tracker|Warning|leaked")
PROMPTS = 96  # of one's own: 80 for four steps of 8 and what is held out


@pytest.fixture
def own(random_pair: Path, tmp_path: Path) -> list[str]:
    """The README's command for one's own models, with a random pair and some prompts, in a folder of its own."""
    (block,) = re.findall(r"```bash\n(python -m harness\.run setting=custom.*?)```", README, re.DOTALL)
    given = dict(part.split("=", 1) for part in shlex.split(block.replace("\\\n", " "))[3:])
    prompts = tmp_path / "my.jsonl"
    rows = ({"prompt": f"Start with {n % 10} , add {n // 10} ."} for n in range(PROMPTS))
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given |= {f"setting.{side}": str(random_pair / side) for side in ("student", "teacher")}
    given |= {"setting.prompts": str(prompts), "setting.max_new_tokens": "16", "setting.top_k": "8"}
    given |= {"results_dir": str(tmp_path / "results"), "method": "opd", "seed": "0", "engine.save_every": "2"}
    return [f"{key}={value}" for key, value in given.items()]


def test_what_the_first_try_shows(own: list[str], tmp_path: Path) -> None:
    """The check of the pair, the view, losses and distances without a benchmark, and the next command."""
    ended = on_terminal("harness.run", *own, "setting.steps=4")
    assert ended.code == 0 and not TROUBLE.search(ended.shown), ended.shown
    for words in (
        "Pair: ",
        "First prompt, as the models see it: ",
        "workers are starting",
        "distance to the teacher",
        "opd seed0, first and last 2 of 4 steps: loss ",
        "next: python -m harness.report ",
    ):
        assert words in ended.shown, words
    assert "Nothing to compare" not in ended.shown
    (command,) = re.findall(r"next: python -m (harness\.report .*)", ended.shown)
    page = on_terminal(*shlex.split(command))
    assert page.code == 0 and ".html" in page.shown


def test_ctrl_c_and_going_on(own: list[str], tmp_path: Path) -> None:
    """Interrupted in training it says where it goes on, and does: every step is there once."""
    arguments = [*own, "setting.steps=200"]
    stopped = on_terminal("harness.run", *arguments, stop_at=r" ([4-9]|\d{2,3})/200")
    assert stopped.code == 130 and not TROUBLE.search(stopped.shown), stopped.shown
    assert re.search(r"opd seed0: stopped at step \d+; goes on from step \d+", stopped.shown)
    resumed = on_terminal("harness.run", *arguments)
    assert resumed.code == 0 and not TROUBLE.search(resumed.shown), resumed.shown
    (folder,) = (tmp_path / "results").glob("mine-*/opd/seed0")
    assert [row["step"] for row in read_metrics(folder)] == list(range(1, 201))


@pytest.mark.parametrize("moment", ["reading the configuration", "checking models", "workers are starting"])
def test_ctrl_c_before_anything_runs(moment: str, own: list[str]) -> None:
    ended = on_terminal("harness.run", *own, stop_at=moment, limit_s=120)
    assert ended.code == 130 and not TROUBLE.search(ended.shown), ended.shown
    assert "interrupted; run the same command again to go on from here." in ended.shown


@pytest.mark.parametrize("moment", ["workers are starting", r"loading", r" [4-9]/90"])
def test_ctrl_c_with_workers(moment: str, tmp_path: Path) -> None:
    """The default comparison, a run per core: its workers go with it, and say nothing."""
    given = ["method=opd,tropd", "seed=0,1", "evaluation=none", f"results_dir={tmp_path}"]
    ended = on_terminal("harness.run", *given, stop_at=moment, limit_s=120)
    assert ended.code == 130 and not TROUBLE.search(ended.shown), ended.shown
    assert re.search(r"of 4 runs finished, \d not begun", ended.shown)


def test_few_problems_of_a_checkpoint(tmp_path: Path) -> None:
    """Something is shown at once, then a bar, then the score under a name of its own."""
    given = ["checkpoint=harness/tiny/checkpoints/student", "evaluation=tiny", "limit=20", "evaluation.samples=4"]
    ended = on_terminal("harness.evaluate", *given, f"results_dir={tmp_path}")
    assert ended.code == 0 and not TROUBLE.search(ended.shown), ended.shown
    assert "loading libraries" in ended.shown and "loading the model" in ended.shown
    assert re.search(r"arithmetic: .* of at most .* tokens", ended.shown)
    assert "(20 of" in ended.shown
    assert ended.first_s is not None and ended.first_s < 10


def test_ctrl_c_in_an_evaluation(tmp_path: Path) -> None:
    given = ["checkpoint=harness/tiny/checkpoints/student", "evaluation=tiny", f"results_dir={tmp_path}"]
    for moment in ("loading libraries", "loading the model", "of at most"):
        ended = on_terminal("harness.evaluate", *given, "evaluation.samples=64", stop_at=moment)
        assert ended.code == 130 and not TROUBLE.search(ended.shown), (moment, ended.shown)
        assert ended.shown.count("interrupted; ") == 1


def test_typing_errors(own: list[str]) -> None:
    for wrong, words in (
        ("setting.stepz=3", "did you mean setting.steps?"),
        ("method=trodp", "did you mean tropd?"),
        ("--method", "options are written key=value"),
    ):
        ended = on_terminal("harness.run", *own, wrong)
        assert ended.code == 2 and words in ended.shown and not TROUBLE.search(ended.shown), ended.shown
