"""What Hydra says of a mistyped command line, in one sentence that names the mistake and the way out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from omegaconf import DictConfig

from harness.config.execution import renamed
from harness.errors import UserError

QUOTING = """'setting.student="a, b=c"'"""
GRAMMAR = re.compile("token recognition error|no viable alternative|mismatched input|extraneous input")
UNKNOWN_KEY = re.compile(r"Could not override '([^']*)'")
UNKNOWN_OPTION = re.compile(
    r"Could not find '([^']*)'.*?Available options in '([^']*)':\s*(.*?)\s*(?:\n\s*Config search|\Z)", re.DOTALL
)
LAUNCHERS = {  # Hydra's launchers that other packages bring -> the package
    "submitit_slurm": "hydra-submitit-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "ray": "hydra-ray-launcher",
    "ray_aws": "hydra-ray-launcher",
    "rq": "hydra-rq-launcher",
}


def check_form(arguments: Sequence[str]) -> None:
    """Raises UserError for an argument that is not key=value, before a parser's own words for it."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before.endswith(",") and "=" not in argument:
            raise UserError(
                f"{before} {argument}: a sweep is written without spaces: {before}{argument.lstrip(',')}; or quote the "
                "whole argument."
            )
        if argument in ("-m", "--multirun"):
            raise UserError(f"{argument} is not needed: key=a,b sweeps by itself.")
        if argument.startswith("--") and "=" in argument:
            raise UserError(f"{argument}: options are written without dashes: {argument.lstrip('-')}.")
        if argument.startswith("-"):
            name = argument.lstrip("-")
            raise UserError(f"{argument}: options are written key=value, without dashes, such as {name}=…")
        if "=" not in argument and not argument.startswith("~"):
            raise UserError(f"{argument!r} is not key=value, such as method=tropd.")
    if arguments and arguments[-1].endswith(","):
        raise UserError(f"{arguments[-1]} ends with a comma: nothing follows it.")


def one_sentence(error: Exception, command: str, keys: Iterable[str] = ()) -> str:
    """What a message of Hydra or OmegaConf says: the unknown key or option, with the nearest known one.

    `keys`: those of the configuration, dotted.
    """
    text = str(error)
    if (unknown := UNKNOWN_KEY.search(text)) and (sentence := renamed(unknown[1])):
        return sentence
    if (unknown := UNKNOWN_KEY.search(text)) and unknown[1].startswith("method."):
        return (
            f"unknown key {unknown[1]!r}: the method has no such knob; `python -m {command} method=… --help` shows "
            "those it has."
        )
    if unknown:
        return (
            f"unknown key {unknown[1]!r}{_meant(unknown[1], keys)}; `python -m {command} --help` shows the "
            "configuration."
        )
    if option := UNKNOWN_OPTION.search(text):
        group, known = option[2], public(option[3].split())
        name = option[1].removeprefix(f"{group}/")
        if group == "hydra/launcher" and name in LAUNCHERS:
            return f"hydra/launcher={name} comes with a package that is not installed: pip install {LAUNCHERS[name]}."
        return f"there is no {option[1]!r}{_meant(name, known)}; known options of {group}: {', '.join(known)}."
    if "override_grammar" in text or GRAMMAR.search(text):
        what = " ".join(text.split("\n")[0].removeprefix("LexerNoViableAltException: ").split())
        return f"cannot be read: {what}; a value with such characters is given in double quotes: {QUOTING}."
    if text.startswith("Config group override must be"):
        return "setting, engine, evaluation and experiment are chosen by a name, such as evaluation=none; null is none."
    return " ".join(text.split()) or type(error).__name__


def _meant(name: str, known: Iterable[str]) -> str:
    """The nearest known name as a question, or nothing; a key is also looked for by its last part, in other groups."""
    known = list(known)
    beside = [key for key in known if key.count(".") == name.count(".")]
    close = difflib.get_close_matches(name, beside, n=1, cutoff=0.7)
    if not close and not name.startswith("method."):
        last = {key.rpartition(".")[2]: key for key in reversed(known)}
        close = [last[n] for n in difflib.get_close_matches(name.rpartition(".")[2], last, n=1, cutoff=0.8)]
    return f" (did you mean {close[0]}?)" if close else ""


def public(options: Iterable[str]) -> list[str]:
    """A file whose name begins with _ is a part of others."""
    return [name for name in options if not name.startswith("_")]


def keys_of(config: DictConfig, prefix: str = "") -> list[str]:
    """Every key of a configuration, dotted, groups included; interpolations are not resolved."""
    found = []
    for key, value in config.items_ex(resolve=False):
        name = prefix + str(key)
        found.append(name)
        if isinstance(value, DictConfig):
            found += keys_of(value, f"{name}.")
    return found
