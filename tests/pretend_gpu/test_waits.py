"""The budget of waits: how often a step makes the host wait for the GPU, by the line of ours that does it.

waits.json holds, for three kinds of step, what is allowed: two micro-batches, eight completions of at most eight
tokens. A line that waits more often, or that is not in it, fails. The lines of the sampler are counted together, since
most of them wait once a token.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from baselines.gkd import GKD
from baselines.opd import OPD
from baselines.tropd import TrOPD
from harness.types import Method
from tests.pretend_gpu.test_training import gpu_config
from tests.pretend_gpu.training import train_on

BUDGET: dict[str, dict[str, int]] = json.loads(Path(__file__).with_name("waits.json").read_text())
SAMPLER = "the sampler"
SAMPLER_FILES = ("rollout/hf.py", "rollout/attention_cache.py")
METHODS = {
    "policy gradient": OPD(),
    "support fetched afterwards": TrOPD(),
    "whole vocabulary": GKD(student_share=1.0),
}


def waits_of_a_step(random_pair: Path, root: Path, method: Method) -> dict[str, int]:
    """Of the first step, whole: its rollouts, scores and update."""
    _, (step, *_) = train_on(gpu_config(random_pair, root, method), root / "run")
    found: Counter[str] = Counter()
    for line, count in step.items():
        found[SAMPLER if line.startswith(SAMPLER_FILES) else line] += count
    return dict(found)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "policy gradient" else pytest.mark.slow) for kind in METHODS]
)
def test_a_step_waits_no_more_often_than_it_may(random_pair: Path, tmp_path: Path, kind: str) -> None:
    found = waits_of_a_step(random_pair, tmp_path, METHODS[kind])
    over = {line: count for line, count in found.items() if count > BUDGET[kind].get(line, 0)}
    assert not over, f"beyond the budget of {kind!r}: {json.dumps(over, indent=2)}"


def test_the_budget_has_no_line_that_is_gone() -> None:
    """A budget of lines that nobody has is no budget: each is the text of a line of the harness."""
    for lines in BUDGET.values():
        for line in lines.keys() - {SAMPLER}:
            path, _, text = line.partition(": ")
            source = (Path(__file__).parents[2] / "harness" / path).read_text()
            assert text in {own.strip() for own in source.splitlines()} or not text, line
