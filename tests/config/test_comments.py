"""A help text explains its keys."""

from __future__ import annotations

import pytest

from harness.config.comments import commented, comments_of, knob_comments, task_names
from harness.config.knobs import read_knobs
from harness.config.methods import method_names
from harness.evaluation.loading import known_tasks
from harness.run import show_help


def test_a_comment_stands_behind_its_key() -> None:
    text = "a:\n  b: 1\n  c: 2\nd: null\n"
    lines = commented(text, {"a.c": "of c", "d": "of d", "b": "of another"}).splitlines()
    assert lines[:2] == ["a:", "  b: 1"]
    assert [line.split() for line in lines[2:]] == [["c:", "2", "#", "of", "c"], ["d:", "null", "#", "of", "d"]]


def test_keys_of_groups_of_groups_and_of_the_top() -> None:
    found = comments_of("tropd")
    for key in (
        "setting.termination",
        "engine.micro_batch_prompts",
        "evaluation.limit",
        "method.beta",
        "engine.vllm.sleep",
    ):
        assert found[key], key
    assert found["launch.num_processes"] == "ranks that train it together"
    assert found["engine.micro_batch_prompts"].endswith("None: what memory holds (planning.micro_batches)")
    assert "setting.learning_rate" not in found  # which explains itself


@pytest.mark.parametrize("name", method_names())
def test_every_knob_has_a_comment(name: str) -> None:
    """Of a method's own fields; those of a method that it builds on are explained there."""
    own = knob_comments(name)
    assert set(own) <= {f"method.{knob}" for knob in read_knobs(name) or {}}


def test_tasks_are_those_of_lm_eval() -> None:
    assert task_names() == sorted(known_tasks())


def test_the_help_shows_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_help(["method=tropd"]) == 0
    shown = capsys.readouterr().out
    assert " _" not in shown.split("Groups")[1].split("Configuration of")[0]
    assert "evaluation.tasks: a list of aime24" in shown
    (knob,) = [line for line in shown.splitlines() if line.startswith("  beta: ")]
    assert knob.endswith("# weight of the prefix imitation term, dimensionless; the paper's")
