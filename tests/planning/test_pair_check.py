"""What is said of a pair of one's own before it is trained, and of the shipped ones not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.config.sweep import planned_runs
from harness.planning.pair_check import SHOWN_CHARACTERS, left_line, pair_lines
from harness.run import compare


def own(pair: Path, tmp_path: Path, *more: str) -> list[str]:
    """A command line that brings its models and two prompts, the first of them long."""
    prompts = tmp_path / "my.jsonl"
    rows = [{"prompt": "What is 1 + 2 ? " * 60}, {"prompt": "What is 2 + 3 ?"}]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    models = [f"setting.{side}={pair / side}" for side in ("student", "teacher")]
    given = ["setting=custom", *models, f"setting.prompts={prompts}", "setting.top_k=8", "evaluation=none"]
    return [*given, "method=opd", "seed=0", "hydra.mode=RUN", *more]


def test_the_pair_in_five_lines(random_pair: Path, tmp_path: Path) -> None:
    chosen = ["setting.steps=2", "setting.max_new_tokens=16", "setting.prompts_per_step=2"]
    arguments = own(random_pair, tmp_path, *chosen)
    pair, ends, template, contexts, prompt = pair_lines(planned_runs(arguments)[0], arguments)
    assert pair.endswith("; one tokenizer, 64 tokens")
    assert ends.startswith("End tokens: 1 '<eos>'")
    assert template.endswith("the teacher's own writes the same")
    assert contexts.startswith("Contexts: student 2,048, teacher 2,048 positions; a prompt has at most 2,048")
    assert prompt.startswith(f"First prompt, as the models see it (the first {SHOWN_CHARACTERS} of ")
    assert len(prompt) < SHOWN_CHARACTERS + 100 and "What is 1 + 2 ?" in prompt


def test_what_was_left_at_the_papers_values(random_pair: Path, tmp_path: Path) -> None:
    """128 prompts x 4 samples x 8,096 tokens = 4,145,152 a step; x 3 steps = 12,435,456."""
    arguments = own(random_pair, tmp_path, "setting.steps=3", "engine.device=cpu")
    line = left_line(planned_runs(arguments)[0], arguments)
    assert line.startswith(
        "Left at the paper's values: setting.max_new_tokens=8096, setting.prompts_per_step=128. "
        "A run writes at most 12,435,456 tokens (4,145,152 a step), in at most some "
    )
    assert line.endswith("A first try: setting.max_new_tokens=256 setting.prompts_per_step=8")


def test_the_shipped_pair_says_its_ends_alone() -> None:
    arguments = ["method=opd", "seed=0", "hydra.mode=RUN"]
    (line,) = pair_lines(planned_runs(arguments)[0], arguments)
    assert line.startswith("End tokens: ")


def test_the_dry_run_says_it_too(random_pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(own(random_pair, tmp_path, "setting.max_new_tokens=64", "dry_run=true")) == 0
    shown = capsys.readouterr().out
    assert "\nPair: " in shown and "\nLeft at the paper's values: setting.steps=200, setting.prompts_per_step" in shown
