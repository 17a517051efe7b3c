"""Every run that a command line asks for, as Hydra composes it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config.comments import commented, comments_of
from harness.config.entries import spelled_out
from harness.config.methods import register_methods
from harness.config.mistakes import UNKNOWN_KEY, check_form, keys_of, one_sentence, public
from harness.config.settings import CONF_DIR, RunConfig
from harness.config.values import whole_number
from harness.errors import UserError

ASSIGNMENT = re.compile(r"[+~]{0,2}[\w.@/-]+=")
BARE = re.compile(r"[^,\[\]{}()'\"$\\]+")  # a value that can only be one text


def quoted(arguments: Sequence[str]) -> list[str]:
    """The arguments as Hydra takes them (harness.config.entries), with quotes around values that its grammar has no
    place for, as a path with `=` or `ü`.
    """
    return [_quoted(argument) for argument in spelled_out(arguments)]


def _quoted(argument: str) -> str:
    key = ASSIGNMENT.match(argument)
    if key is None or not BARE.fullmatch(argument, key.end()):
        return argument
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return f"{key[0]}'{argument[key.end() :]}'"
    return argument


@contextmanager
def composing(command: str = "harness.run") -> Iterator[None]:
    """conf/ is open for Hydra's `compose`; what it refuses becomes a UserError that names the command's help."""
    try:
        with initialize_config_dir(str(CONF_DIR), version_base=None):
            yield
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # a ValueError: setting=null
        known = _keys(command) if UNKNOWN_KEY.search(str(error)) else []
        raise UserError(one_sentence(error, command, known)) from error
    finally:
        GlobalHydra.instance().clear()


def _keys(command: str) -> list[str]:
    """Those that a command knows, for "did you mean"; without a method's knobs, which are not those of another."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF_DIR), version_base=None):
        config = compose("evaluate" if command == "harness.evaluate" else "config")
    return [key for key in keys_of(config) if not key.startswith("method.")]


def options_and_configuration(arguments: Sequence[str]) -> tuple[dict[str, list[str]], str]:
    """What a help text shows: group -> its options, and the configuration of a command line as YAML, each key with its
    comment (what it sweeps, unswept).

    Hydra's own help takes a copy of every configuration for every group that it lists, which is most of its time.
    """
    register_methods()
    with composing():
        loader = GlobalHydra.instance().config_loader()
        given = OverridesParser.create(loader).parse_overrides(quoted(arguments))
        config = compose("config", overrides=_fixed(given), return_hydra_config=True)
        groups = sorted(group for group in config.hydra.runtime.choices if not group.startswith("hydra/"))
        options = {group: public(loader.get_group_options(group)) for group in groups}
        shown = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        return options, commented(OmegaConf.to_yaml(shown), comments_of(str(config.method.get("name"))))


def planned_runs(arguments: Sequence[str]) -> list[RunConfig]:
    """Every run that Hydra will make of this command line, in its order."""
    register_methods()
    check_form(arguments)
    with composing():
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())  # which glob(*) looks options up in
        given = parser.parse_overrides(quoted(arguments))
        fixed = _fixed(given)
        hydra_config = compose("config", overrides=fixed, return_hydra_config=True).hydra
        axes = {}
        if str(hydra_config.mode).endswith("MULTIRUN"):
            mentioned = {override.get_key_element() for override in given}
            defaults = [f"{key}={value}" for key, value in hydra_config.sweeper.params.items() if key not in mentioned]
            sweeps = [*parser.parse_overrides(defaults), *given]
            axes = {
                o.get_key_element(): _values(o) for o in sweeps if o.is_sweep_override() or o.input_line in defaults
            }
        elif several := next((o.input_line for o in given if o.is_sweep_override()), None):
            key, _, value = str(several).partition("=")
            raise UserError(
                f"hydra.mode=RUN makes one run, and {several} stands for several; leave hydra.mode=RUN out, or, where "
                f"the comma belongs to the value, quote it twice: '{key}=\"{value}\"'."
            )
        seeds = axes.pop("seed", None)  # composing takes a while, and a seed changes nothing else
        choices = itertools.product(*([f"{key}={value}" for value in values] for key, values in axes.items()))
        runs = [RunConfig.from_hydra(compose("config", overrides=[*fixed, *choice])) for choice in choices]
        return [replace(run, seed=whole_number("seed", s)) for run in runs for s in seeds] if seeds else runs


def _fixed(overrides: Sequence[Override]) -> list[str]:
    return [str(override.input_line) for override in overrides if not override.is_sweep_override()]


def _values(override: Override) -> list[str]:
    return (
        list(override.sweep_string_iterator())
        if override.is_sweep_override()
        else [override.get_value_element_as_str()]
    )
