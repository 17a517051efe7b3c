"""The sandbox of this machine. Where there is none, tests that need it skip, but never in continuous integration."""

from __future__ import annotations

import os

import pytest

from harness.errors import UserError
from harness.sandbox import Sandbox


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    try:
        return Sandbox.detect(allow_unsafe=False)
    except UserError as error:
        if os.environ.get("CI"):
            pytest.fail(f"Continuous integration must test the sandbox: {error}")
        pytest.skip(str(error))
