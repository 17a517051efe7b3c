"""Where a number came from: local changes are seen, files that git does not know among them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.config.methods import method_source
from harness.results.provenance import _git_state


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit."""
    for name in ("baselines/opd.py", "harness/run.py", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    state = _git_state(checkout)
    assert len(state["commit"]) == 40 and state["dirty"] is False


@pytest.mark.parametrize(
    ("name", "dirty"),
    [
        ("baselines/quantile_clip.py", True),  # a method that no commit has
        ("conf/setting/mine.yaml", True),
        ("harness/run.py", True),
        ("README.md", False),  # makes no number
        ("results/tiny/record.json", False),
    ],
)
def test_what_counts_as_a_local_change(checkout: Path, name: str, dirty: bool) -> None:
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    (checkout / name).write_text("y\n")
    assert _git_state(checkout)["dirty"] is dirty


def test_no_repository_is_said(tmp_path: Path) -> None:
    assert _git_state(tmp_path) == {"commit": None, "dirty": None}


def test_a_methods_source_is_its_file_and_those_it_builds_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import baselines

    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(tmp_path)])
    base, method = tmp_path / "base_of_a_test.py", tmp_path / "method_of_a_test.py"
    base.write_text("X = 1\n")
    method.write_text("from baselines.base_of_a_test import X\n")
    first = method_source("method_of_a_test")
    base.write_text("X = 2\n")
    second = method_source("method_of_a_test")
    method.write_text("from baselines.base_of_a_test import X  # another\n")
    assert len({first, second, method_source("method_of_a_test"), method_source("opd")}) == 4
