"""The knobs of a method with their defaults, read from the text of its file: importing it takes torch, and seconds.

Read are the fields of a dataclass, own and inherited from another file of baselines/, whose defaults are made of
literals, constants of such files, of harness.divergences and `math`. Whatever else a file does, None says that only
importing it can tell.
"""

from __future__ import annotations

import ast
import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = "baselines"
GROUND = "harness.divergences"  # whose constants a method may use too
_NOT_FIELDS = ("ClassVar", "InitVar", "KW_ONLY")  # annotations that dataclasses treat otherwise


class _NotStaticError(Exception):
    """The text alone does not say."""


@dataclass(frozen=True)
class _Source:
    """The top level of a file."""

    classes: Mapping[str, ast.ClassDef]
    constants: Mapping[str, ast.expr]
    imported: Mapping[str, tuple[str, str]]  # local name -> module and the name there, of `from module import name`
    modules: frozenset[str]  # of `import module`


def read_knobs(name: str) -> dict[str, Any] | None:
    """Knob -> default of the METHOD of baselines/<name>.py; None where it has to be imported. Raises SyntaxError."""
    module = f"{PACKAGE}.{name}"
    try:
        method = _source(module).constants.get("METHOD")
        if not isinstance(method, ast.Name):
            return None
        return _fields(module, method.id)
    except (_NotStaticError, RecursionError):  # the latter: constants that are defined by each other
        return None


@cache
def _read(path: Path) -> _Source:
    classes: dict[str, ast.ClassDef] = {}
    constants: dict[str, ast.expr] = {}
    imported: dict[str, tuple[str, str]] = {}
    modules: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8"), str(path)).body:
        match node:
            case ast.ClassDef():
                classes[node.name] = node
            case ast.Assign(targets=[ast.Name(id=target)], value=value):
                constants[target] = value
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value):
                constants[target] = value
            case ast.ImportFrom(module=str(module), level=0):
                imported |= {alias.asname or alias.name: (module, alias.name) for alias in node.names}
            case ast.Import():
                modules |= {alias.name for alias in node.names if alias.asname is None}
    return _Source(classes, constants, imported, frozenset(modules))


def _source(module: str) -> _Source:
    known = module == GROUND or module.startswith(f"{PACKAGE}.")
    spec = importlib.util.find_spec(module) if known else None
    if spec is None or spec.origin is None:
        raise _NotStaticError
    return _read(Path(spec.origin))


def _fields(module: str, name: str) -> dict[str, Any]:
    """Of a class and its bases, in the order of the dataclass: a field that is given again keeps its place."""
    source = _source(module)
    if name in source.imported:
        module, name = source.imported[name]
        return {} if (module, name) == ("harness.types", "Method") else _fields(module, name)
    if name not in source.classes:
        raise _NotStaticError
    node = source.classes[name]
    decorators = [ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list]
    if decorators != ["dataclass"] or len(node.bases) != 1 or not isinstance(node.bases[0], ast.Name):
        raise _NotStaticError
    fields = _fields(module, node.bases[0].id)
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign):
            annotation = ast.unparse(statement.annotation)
            if not isinstance(statement.target, ast.Name) or any(word in annotation for word in _NOT_FIELDS):
                raise _NotStaticError
            fields[statement.target.id] = _value(module, statement.value)
    return fields


def _value(module: str, expression: ast.expr | None) -> Any:
    """What an expression of literals, constants and `math` is."""
    if expression is None:
        raise _NotStaticError
    names = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}
    known = {name: _constant(module, name) for name in names}
    try:
        return eval(compile(ast.Expression(expression), module, "eval"), {"__builtins__": {}, **known})
    except Exception as error:
        raise _NotStaticError from error


def _constant(module: str, name: str) -> Any:
    source = _source(module)
    if name == "math" and name in source.modules:
        return math
    if name in source.constants:
        return _value(module, source.constants[name])
    if name in source.imported:
        return _constant(*source.imported[name])
    raise _NotStaticError
