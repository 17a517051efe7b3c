"""The house: doors in front, rooms behind them, every import downwards, and nothing too large to read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from harness.files import ROOT

# From the ground up: a room imports rooms before it, never one after it. CONTRIBUTING.md draws it.
ROOMS = (
    *("errors", "types", "seeds", "divergences", "files", "sandbox", "numerics", "config", "models"),
    *("results", "console", "rollout", "scoring", "engines", "evaluation", "training", "planning", "diagnosis"),
)
METHOD_MAY_IMPORT = {"harness.types", "harness.divergences"}  # and other methods
FOLDERS = ("harness", "baselines", "tasks")
LARGEST_FILE, LARGEST_FUNCTION, MOST_PARAMETERS, FRONT_FILES = 400, 60, 7, 22
MOST_UNNAMED = 4  # arguments of a call of our own that stand without a name


def modules(*folders: str) -> dict[str, Path]:
    """Every module by its dotted name."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


def imports(path: Path) -> Iterator[str]:
    """What a file imports, anywhere in it, also for type checking alone; a name of a package as if it were a module of
    it.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph() -> dict[str, set[str]]:
    """Module -> modules of harness that it imports."""
    known = modules("harness")
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        targets = {target if target in known else target.rpartition(".")[0] for target in imports(path)}
        found[name] = {target for target in targets if target in known and target not in (name, "harness")}
    return found


def room_of(module: str) -> str:
    return module.split(".")[1]


def test_no_import_circle() -> None:
    TopologicalSorter(graph()).prepare()  # raises CycleError, which names the circle


def test_a_circle_would_be_found() -> None:
    with pytest.raises(ValueError, match="cycle"):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


def test_imports_go_down() -> None:
    wrong = []
    for module, targets in graph().items():
        if module == "harness":
            continue
        for room in {room_of(target) for target in targets} - {room_of(module)}:
            if room not in ROOMS:
                wrong.append(f"{module} imports the door {room}")
            elif room_of(module) in ROOMS and ROOMS.index(room) > ROOMS.index(room_of(module)):
                wrong.append(f"{module} imports {room}, which is above it")
    assert not wrong


def test_every_room_of_the_list_exists() -> None:
    rooms = {room_of(module) for module in modules("harness") if module != "harness"}
    assert set(ROOMS) <= rooms


def test_a_method_imports_types_divergences_and_methods_alone() -> None:
    for name, path in modules("baselines").items():
        ours = {target.rpartition(".")[0] for target in imports(path) if target.startswith(("harness", "tasks"))}
        assert ours <= METHOD_MAY_IMPORT, name


def test_the_front_is_small() -> None:
    assert len(list((ROOT / "harness").glob("*.py"))) <= FRONT_FILES


@pytest.mark.parametrize("name,path", modules(*FOLDERS).items(), ids=str)
def test_nothing_is_too_large(name: str, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LARGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < LARGEST_FUNCTION, f"{node.name} is too long"
            assert len(parameters(node)) <= MOST_PARAMETERS, f"{node.name} has too many parameters"


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names of a function's parameters, without self or cls, and without `**_`: what may be said and is ignored."""
    given = node.args
    names = [a.arg for a in [*given.posonlyargs, *given.args, *given.kwonlyargs]]
    names += [a.arg for a in (given.vararg, given.kwarg) if a is not None]
    return [name for name in names if name not in ("self", "cls", "_")]


def named_parameters(tree: ast.AST) -> set[str]:
    """Functions and classes of a file that can be called with every argument named."""
    known: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) or (isinstance(node, ast.FunctionDef) and node.args.vararg is None):
            known.add(node.name)
    return known


def calls_of(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the last part of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func).rpartition(".")[2], node


def test_a_call_of_ours_names_its_arguments() -> None:
    """From the fifth on nobody can tell them apart by their place, and two of one type change places silently."""
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in modules(*FOLDERS).items()}
    ours = set().union(*map(named_parameters, trees.values()))
    wrong = [
        f"{name}, line {call.lineno}: {called} has {len(call.args)} unnamed arguments"
        for name, tree in trees.items()
        for called, call in calls_of(tree)
        if called in ours and len(call.args) > MOST_UNNAMED
    ]
    assert not wrong


def test_a_call_without_names_would_be_found() -> None:
    tree = ast.parse("def f(a, b, c, d, e): ...\ndef g(*many): ...\nx.f(1, 2, 3, 4, 5)\ng(1, 2, 3, 4, 5)")
    assert named_parameters(tree) == {"f"}
    assert [(called, len(call.args)) for called, call in calls_of(tree)] == [("f", 5), ("g", 5)]
