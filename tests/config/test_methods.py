"""The scan of baselines/."""

from __future__ import annotations

from pathlib import Path

import pytest

import baselines
from harness.config.methods import find_methods
from harness.errors import UserError

UNDECORATED = """from harness.types import Method
class Mine(Method):
    knob: float = 1.0
METHOD = Mine
"""


@pytest.mark.parametrize(
    ("name", "source"), [("undecorated", UNDECORATED), ("number", "METHOD = 3"), ("other_type", "METHOD = int")]
)
def test_a_method_is_a_dataclass_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str
) -> None:
    """The base class is a dataclass too: without @dataclass a subclass would have no knobs, silently."""
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(tmp_path)])
    with pytest.raises(UserError, match=rf"baselines/{name}\.py: METHOD must be a dataclass that subclasses"):
        find_methods()
