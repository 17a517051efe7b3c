"""What the harness takes from other libraries without being promised it: is it there, and is it all in one file."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.files import ROOT
from harness.models import private_names
from harness.models.private_names import PrivateName, found_at

LIST = ROOT / "harness" / "models" / "private_names.py"
INTERNAL = ("vllm.v1", "vllm.model_executor", "vllm.entrypoints")  # of vLLM, without an underscore
STANDARD = {"os._exit", "self._actions"}  # Python's own: documented, and of every ArgumentParser


def check(name: PrivateName) -> None:
    """ImportError if a name is not there any more."""
    if name.set_by is None:
        name.get()
    elif name.name not in inspect.getsource(found_at(name.set_by, name.why)):
        raise ImportError(f"{name.set_by} has no {name.name} any more: {name.why}")


OURS = [name for name in private_names.ALL if not name.where.startswith("vllm")]


@pytest.mark.parametrize("name", OURS, ids=lambda name: name.where)
def test_it_is_there_in_the_installed_version(name: PrivateName) -> None:
    """Those of vLLM: tests/vllm/test_private_names.py."""
    check(name)


def test_what_is_missing_is_named() -> None:
    gone = PrivateName("torch.nn.modules.dropout:_DropoutMd", "is an example")
    with pytest.raises(ImportError, match=r"of torch has no torch\.nn\.modules\.dropout:_DropoutMd: is an example"):
        check(gone)
    with pytest.raises(ImportError, match="no torch_of_old:nn"):
        check(PrivateName("torch_of_old:nn", ""))
    with pytest.raises(ImportError, match=r"torch\.nn:Linear has no _packed any more: is an example"):
        check(PrivateName("torch.nn:Linear._packed", "is an example", set_by="torch.nn:Linear"))


def test_every_name_has_a_reason() -> None:
    assert len(private_names.ALL) >= 10 and all(len(name.why) > 20 for name in private_names.ALL)


def reached(tree: ast.AST, own: set[str]) -> Iterator[str]:
    """What a file takes from others that is not of their interface; `own`: private names that are the harness's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith(("harness", "__future__")):
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            internal = (node.module + ".").startswith(tuple(f"{module}." for module in INTERNAL))
            if internal or any(name.startswith("_") for name in names):
                yield f"{node.module}: {', '.join(alias.name for alias in node.names)}"
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            named = ast.unparse(node)
            yield from [named] if node.attr not in own and named not in STANDARD else []


def defined(tree: ast.AST) -> set[str]:
    """Private names that a file gives to its own classes, functions and objects."""
    found = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
        elif isinstance(node, ast.AnnAssign):  # a field
            found.add(ast.unparse(node.target))
    return {name for name in found if name.startswith("_")}


def trees() -> dict[Path, ast.AST]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "harness").rglob("*.py"))}


def test_no_other_file_reaches_for_one() -> None:
    files = trees()
    own = set().union(*map(defined, files.values()))
    typing_alone = {"_typeshed: DataclassInstance"}
    wrong = {str(path.relative_to(ROOT)): set(reached(tree, own)) - typing_alone for path, tree in files.items()}
    assert {path: names for path, names in wrong.items() if names and ROOT / path != LIST} == {}


@pytest.mark.parametrize(
    "line",
    [
        "from vllm.v1.engine import output_processor",
        "from torch.nn.modules.conv import _ConvNd",
        "from lm_eval.tasks._yaml_loader import load_yaml",
        "model.config._attn_implementation = 'sdpa'",
    ],
)
def test_a_name_elsewhere_would_be_found(line: str) -> None:
    assert len(list(reached(ast.parse(line), set()))) == 1
