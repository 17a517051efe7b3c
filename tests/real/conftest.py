"""Real weights: SmolLM2-135M-Instruct as `tests/real/models.py` builds it, or as a folder $REAL_MODELS has it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.real.models import FOLDER


@pytest.fixture(scope="session")
def smollm2() -> str:
    """The model's folder."""
    folder = Path(os.environ.get("REAL_MODELS", FOLDER)) / "smollm2"
    if not (folder / "model.safetensors").is_file():
        pytest.fail(f"there is no {folder}; make it with `python tests/real/models.py smollm2`, or set REAL_MODELS")
    return str(folder)
