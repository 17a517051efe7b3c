"""The scan of baselines/, and Hydra's group `method` made of it."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib
import pkgutil
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from harness.config.identity import file_digest
from harness.config.knobs import read_knobs
from harness.errors import UserError
from harness.types import UNTRAINED, Method


def method_names() -> list[str]:
    """Every baselines/<name>.py, in alphabetical order; the one scan of that folder."""
    import baselines

    return sorted(module.name for module in pkgutil.iter_modules(baselines.__path__))


def find_methods() -> dict[str, type[Method]]:
    """Every baselines/<name>.py that ends with METHOD = <dataclass>, by name. Imports them all, and torch."""
    return {name: find_method(name) for name in method_names()}


def find_method(name: str) -> type[Method]:
    """The METHOD of baselines/<name>.py; UserError names the file and what is wrong with it."""
    if name not in (known := method_names()):
        raise UserError(f"method.name={name!r}: there is no baselines/{name}.py; known: {', '.join(known)}.")
    try:
        method = importlib.import_module(f"baselines.{name}").METHOD
    except Exception as error:
        raise _unusable(name, error) from error
    of_its_own = isinstance(method, type) and "__dataclass_fields__" in vars(method)  # not the base class's
    if not (of_its_own and issubclass(method, Method)):
        raise UserError(f"baselines/{name}.py: METHOD must be a dataclass that subclasses harness.types.Method.")
    return method


def defaults_of(name: str) -> dict[str, Any]:
    """Knob -> default of a method, read from its file if that suffices (harness.config.knobs), else by importing it."""
    try:
        knobs = read_knobs(name)
    except (SyntaxError, ValueError) as error:  # a ValueError: bytes that are no text
        raise _unusable(name, error) from error
    if knobs is not None:
        return knobs
    method = find_method(name)
    try:
        return {field.name: getattr(method(), field.name) for field in dataclasses.fields(method)}
    except Exception as error:  # a knob without a default, or a default that the method itself refuses
        raise _unusable(name, error) from error


def method_source(name: str) -> str:
    """sha256 over a method's file and those of the methods that it is made of: what a commit may not know yet."""
    files: dict[str, Path] = {}
    wanted = [f"baselines.{name}"]
    while wanted:
        module = wanted.pop()
        if module not in files:
            files[module] = Path(str(importlib.import_module(module).__file__))
            tree = ast.parse(files[module].read_text(encoding="utf-8"))
            imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            wanted += [other for other in imported if other.startswith("baselines.")]
    lines = [f"{module} {file_digest(path)}\n" for module, path in sorted(files.items())]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def register_methods() -> None:
    """Makes the scan's result Hydra's group `method`, with every knob and its default."""
    store = ConfigStore.instance()
    for name in method_names():
        store.store(group="method", name=name, node={"name": name, **defaults_of(name)})
    for name in UNTRAINED:
        store.store(group="method", name=name, node={"name": name})


def _unusable(name: str, error: Exception) -> UserError:
    return UserError(f"baselines/{name}.py cannot be used: {type(error).__name__}: {error}")
