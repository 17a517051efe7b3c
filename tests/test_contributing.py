"""CONTRIBUTING.md works as it stands: its files, written into a copy of the tree, and its commands, run there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.files import ROOT
from harness.results.record import load_record

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = re.findall(r"\*\*`([^`]+)`\*\*\n+```\w+\n(.*?)```", TEXT, re.S)
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.S) for line in block.splitlines()]
COPIED = ("baselines", "conf", "harness", "tasks", "tests/conftest.py", "tests/contract", "pyproject.toml")
FEWER = ["setting.prompts_per_step=4", "engine.micro_batch_prompts=4"]  # of the same, so that the test is short


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with the new files in it; none of them replaces one that is there."""
    tree = tmp_path_factory.mktemp("contributing") / "tree"
    for name in COPIED:
        source, target = ROOT / name, tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for name, content in FILES:
        assert not (ROOT / name).exists(), f"{name} of the example is a file of the repository"
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content, encoding="utf-8")
    return tree


def test_every_file_is_shown() -> None:
    assert [name for name, _ in FILES] == [
        "baselines/soft_clip.py",
        "tests/baselines/test_soft_clip.py",
        "tasks/parity/parity.yaml",
        "tasks/parity/test.jsonl",
        "tasks/parity/data.py",
        "tasks/parity/grader.py",
        "tests/tasks/test_parity.py",
    ]
    assert len(COMMANDS) == 4 and all(command.startswith("python -m ") for command in COMMANDS)


@pytest.mark.slow
def test_the_commands_run(tree: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1"}
    for command in COMMANDS:
        _, *arguments = shlex.split(command)
        arguments += FEWER if "harness.run" in arguments else ["-p", "no:cacheprovider"]
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, command + done.stdout + done.stderr
    (folder,) = (tree / "results").glob("tiny_cpu-*")
    record = load_record(folder / "soft_clip" / "seed0" / "record.json")
    assert record.status == "completed" and record.knobs == {"c": 5.0} and record.counters.steps == 2
    (evaluation,) = record.evaluations
    assert (evaluation.task, evaluation.problems, evaluation.samples) == ("parity", 4, 4)
    assert "soft_clip" in (folder / "leaderboard.md").read_text(encoding="utf-8")


def test_its_code_passes_the_checks(tree: Path) -> None:
    files = [name for name, _ in FILES if name.endswith(".py")]
    for arguments in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, *files], cwd=tree, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
