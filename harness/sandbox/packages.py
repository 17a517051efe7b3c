"""What a program under test may import: the declared environment, the extra `code` of pyproject.toml.

A program's verdict depends on what it can import, so that the versions belong to a record and to a protocol. Other
versions than the pinned ones may be installed (vLLM wants an older numpy): that is another protocol, not an error.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
from dataclasses import dataclass

from harness.errors import UserError


@dataclass(frozen=True)
class Package:
    """A distribution, and the module that it installs."""

    distribution: str
    version: str  # that the tests were run with
    module: str


PACKAGES = (
    Package("numpy", "2.4.6", "numpy"),
    Package("scipy", "1.17.1", "scipy"),
    Package("sympy", "1.14.0", "sympy"),
    Package("mpmath", "1.3.0", "mpmath"),
    Package("networkx", "3.6.1", "networkx"),
    Package("sortedcontainers", "2.4.0", "sortedcontainers"),
    Package("pandas", "3.1.1", "pandas"),
    Package("python-dateutil", "2.9.0.post0", "dateutil"),  # pandas needs these two
    Package("six", "1.17.0", "six"),
)
MODULES = tuple(package.module for package in PACKAGES)


def require_packages() -> dict[str, str]:
    """The installed versions, by distribution. A missing package is a UserError: it would fail honest programs."""
    versions = installed_versions()
    if missing := [package.distribution for package in PACKAGES if package.distribution not in versions]:
        raise UserError(
            f"Code benchmarks run programs that may import {', '.join(MODULES)}, and {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not installed; run `pip install -e '.[code]'`."
        )
    return versions


@functools.cache
def installed_versions() -> dict[str, str]:
    """The versions of those packages that are installed, by distribution."""
    found = {}
    for package in PACKAGES:
        try:
            if importlib.util.find_spec(package.module) is not None:
                found[package.distribution] = importlib.metadata.version(package.distribution)
        except importlib.metadata.PackageNotFoundError:  # a folder of that name
            continue
    return found
