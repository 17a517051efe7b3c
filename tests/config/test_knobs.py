"""The knobs that are read from the text of a method's file are those of the class."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest

import baselines
from harness.config.knobs import read_knobs
from harness.config.methods import defaults_of, find_method, find_methods, method_names
from harness.errors import UserError
from harness.files import ROOT

HEAD = "import math\nfrom dataclasses import dataclass, field\nfrom harness.types import Method\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a file that is in baselines/ for the length of a test."""
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(tmp_path)])

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, f"baselines.{name}", raising=False)

    return write


@pytest.mark.parametrize("name", method_names())
def test_of_every_method(name: str) -> None:
    """Same names, same values and types, same order; and none of the methods needs to be imported for it."""
    method = find_methods()[name]
    real = [(field.name, getattr(method(), field.name)) for field in dataclasses.fields(method)]  # type: ignore[arg-type]
    read = read_knobs(name)
    assert read is not None and list(read.items()) == real
    assert [type(value) for value in read.values()] == [type(value) for _, value in real]


def test_some_by_hand() -> None:
    assert read_knobs("tropd") == {"beta": 1e-3, "prefix_schedule": "own_length"}
    assert read_knobs("fkl_outlier") == {"beta": 1e-3, "prefix_schedule": "none"}  # inherited and overridden
    assert read_knobs("additive_trust_stop") == {"floor": -5.0, "stop_below": -5.0}  # a constant of another file
    assert read_knobs("reopold_2stage") == {"floor": math.log(1 / 4), "t_switch": 0.5, "beta": 0.2}
    assert read_knobs("opd") == {}


def test_what_the_text_does_not_say_is_imported(write) -> None:
    """A default that a function of the file computes, and one that dataclasses.field holds."""
    body = "@dataclass(frozen=True)\nclass M(Method):\n    x: float = {}\n    y: int = 3\nMETHOD = M\n"
    write("computed", HEAD + "def three() -> float:\n    return 3.0\n" + body.format("three()"))
    write("in_field", HEAD + body.format("field(default=0.5)"))
    assert read_knobs("computed") is None and read_knobs("in_field") is None
    assert defaults_of("computed") == {"x": 3.0, "y": 3}
    assert defaults_of("in_field") == {"x": 0.5, "y": 3}


@pytest.mark.parametrize(
    "body",
    [
        "from typing import ClassVar\n@dataclass(frozen=True)\nclass M(Method):\n    k: ClassVar[int] = 1\n    x: "
        "int = 2\n",
        "@dataclass(frozen=True)\nclass P(Method):\n    x: int = 2\n@dataclass(frozen=True)\nclass M(P, Method):\n   "
        " pass\n",
    ],
    ids=["ClassVar", "two bases"],
)
def test_what_dataclasses_treat_otherwise_is_imported(write, body: str) -> None:
    write("special", HEAD + body + "METHOD = M\n")
    assert read_knobs("special") is None
    assert defaults_of("special") == {"x": 2}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("METHOD = 3\n", "METHOD must be a dataclass"),
        ("", "no attribute 'METHOD'"),
        ("class M(:\n", "SyntaxError"),
        ("import nosuch\nMETHOD = nosuch.M\n", "No module named 'nosuch'"),
        (HEAD + "@dataclass(frozen=True)\nclass M(Method):\n    x: float\nMETHOD = M\n", "'x'"),
        ("a = b\nb = a\nMETHOD = a\n", "name 'b' is not defined"),
    ],
    ids=["no class", "nothing", "syntax", "import", "no default", "circle"],
)
def test_a_broken_file_is_one_sentence(write, text: str, words: str) -> None:
    write("broken", text)
    with pytest.raises(UserError, match=r"^baselines/broken\.py") as refused:
        defaults_of("broken")
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_what_only_importing_shows_is_refused_when_the_method_is_built(write) -> None:
    write("late", HEAD + "import nosuch\n@dataclass(frozen=True)\nclass M(Method):\n    x: int = 2\nMETHOD = M\n")
    assert defaults_of("late") == {"x": 2}
    with pytest.raises(UserError, match=r"^baselines/late\.py cannot be used: ModuleNotFoundError"):
        find_method("late")


def test_an_unknown_name() -> None:
    with pytest.raises(UserError, match=r"method\.name='typo'.*known: .*opd"):
        find_method("typo")


def test_a_run_imports_its_own_method_alone() -> None:
    program = (
        "import sys\nfrom harness.config.sweep import planned_runs\n"
        "planned_runs(['method=tropd', 'seed=0', 'hydra.mode=RUN'])\n"
        "print(*sorted(m for m in sys.modules if m.startswith('baselines.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["baselines.tropd"]
