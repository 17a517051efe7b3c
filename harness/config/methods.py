"""The scan of baselines/, and Hydra's group `method` made of it."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

from hydra.core.config_store import ConfigStore

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
        of_its_own = isinstance(method, type) and "__dataclass_fields__" in vars(method)  # not the base class's
        if not (of_its_own and issubclass(method, Method)):
            raise UserError(
                f"baselines/{module.name}.py: METHOD must be a dataclass that subclasses harness.types.Method."
            )
        methods[module.name] = method
    return methods


def register_methods() -> None:
    """Makes the scan's result Hydra's group `method`, with every knob and its default."""
    store = ConfigStore.instance()
    for name, method in find_methods().items():
        defaults = {field.name: getattr(method(), field.name) for field in dataclasses.fields(method)}
        store.store(group="method", name=name, node={"name": name, **defaults})
    for name in UNTRAINED:
        store.store(group="method", name=name, node={"name": name})
