"""harness.sandbox.packages: one declared list, the same in pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

from harness.sandbox.packages import PACKAGES

ROOT = Path(__file__).parents[2]


def test_the_extra_of_the_project_is_the_declared_list():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["code"] == [f"{package.distribution}=={package.version}" for package in PACKAGES]
    assert "opd-harness[code]" in extras["dev"]


def test_the_tests_run_with_the_declared_versions():
    """Where constraints.txt has a package, it has the same version."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    constraints = dict(line.split("==") for line in lines if "==" in line)
    declared = {package.distribution: package.version for package in PACKAGES}
    shared = declared.keys() & constraints.keys()
    assert {"numpy", "scipy", "pandas"} <= shared
    assert {name: declared[name] for name in shared} == {name: constraints[name] for name in shared}
