"""Every command of the "How do I" pages composes: its keys, options and flags exist. Nothing is trained or loaded."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from harness.__main__ import COMMANDS
from harness.config.mistakes import LAUNCHERS
from harness.config.sweep import planned_runs
from harness.evaluate import _composed
from harness.files import ROOT
from harness.planning.hardware import load_hardware
from tests.test_pages import HOW_TO

BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = {"make", "pip", "tensorboard"}  # programs that are not ours


def commands(page: Path) -> list[list[str]]:
    """The lines of a page's shell blocks, split as a shell would, without comments."""
    lines = [line for block in BLOCK.findall(page.read_text(encoding="utf-8")) for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def installed(arguments: list[str]) -> list[str]:
    """Without a launcher of a package that the page has one install, and that launcher's own keys."""
    given = dict(argument.split("=", 1) for argument in arguments)
    if given.get("hydra/launcher") not in LAUNCHERS:
        return arguments
    return [argument for argument in arguments if not argument.startswith(("hydra/launcher=", "hydra.launcher."))]


def check(module: str, arguments: list[str]) -> None:
    if module == "harness.run":
        assert planned_runs(installed(arguments))
    elif module == "harness.evaluate":
        assert _composed(arguments)["checkpoint"]
    elif module == "harness.plan":
        (own,) = [argument for argument in arguments if argument.startswith("hardware=")]
        load_hardware(own.partition("=")[2])
        assert planned_runs([argument for argument in arguments if argument != own])
    elif module == "pytest":
        assert all((ROOT / word).exists() for word in arguments if word.startswith("tests/"))
    else:
        assert module.removeprefix("harness.") in COMMANDS
        known = importlib.import_module(module).__doc__
        flags = [word for word in arguments if word.startswith("--")]
        assert known and all(flag in known for flag in flags)


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_every_command_composes(page: Path) -> None:
    assert commands(page)
    for command in commands(page):
        if command[0] in ELSEWHERE:
            continue
        assert command[:2] == ["python", "-m"], command
        check(command[2], command[3:])


def test_a_mistyped_command_would_be_noticed() -> None:
    for module, argument in {"harness.run": "methd=opd", "harness.evaluate": "checkpint=x"}.items():
        with pytest.raises(Exception, match="unknown key"):
            check(module, [argument])
    with pytest.raises(AssertionError):
        check("harness.leaderboard", ["x", "--publsh"])
