"""The scan of baselines/, and Hydra's group `method` made of it."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib
import pkgutil
from pathlib import Path

from hydra.core.config_store import ConfigStore

from harness.config.identity import file_digest
from harness.errors import UserError
from harness.types import UNTRAINED, Method


def find_methods() -> dict[str, type[Method]]:
    """Every baselines/<name>.py that ends with METHOD = <dataclass>, by name; the one scan of that folder."""
    import baselines

    methods: dict[str, type[Method]] = {}
    for module in sorted(pkgutil.iter_modules(baselines.__path__), key=lambda m: m.name):
        try:
            method = importlib.import_module(f"baselines.{module.name}").METHOD
        except Exception as error:
            raise UserError(f"baselines/{module.name}.py cannot be used: {type(error).__name__}: {error}") from error
        if not (dataclasses.is_dataclass(method) and isinstance(method, type) and issubclass(method, Method)):
            raise UserError(
                f"baselines/{module.name}.py: METHOD must be a dataclass that subclasses harness.types.Method."
            )
        methods[module.name] = method
    return methods


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
    for name, method in find_methods().items():
        defaults = {field.name: getattr(method(), field.name) for field in dataclasses.fields(method)}  # type: ignore[arg-type]
        store.store(group="method", name=name, node={"name": name, **defaults})
    for name in UNTRAINED:
        store.store(group="method", name=name, node={"name": name})
