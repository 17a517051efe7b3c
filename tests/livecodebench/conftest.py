"""The sandbox, problems in the layout of the set, and a tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.conftest import make_tokenizer
from tests.sandbox.conftest import sandbox

__all__ = ["sandbox"]
DATA = Path(__file__).parents[1] / "data"


def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> str:
    """A data folder with six problems of our own, private tests packed as upstream packs them."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "livecodebench_v6").mkdir()
    shutil.copy(DATA / "lcb_format_synthetic.jsonl", folder / "livecodebench_v6" / "test6.jsonl")
    return str(folder)


@pytest.fixture(scope="session")
def solutions() -> dict[str, str]:
    """A right program for each of them, by id."""
    return dict(json.loads((DATA / "lcb_format_synthetic_solutions.json").read_text()))


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(autouse=True)
def _no_data_from_the_environment(monkeypatch) -> None:
    monkeypatch.delenv("BENCHMARK_DATA", raising=False)
