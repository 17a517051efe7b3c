"""What `python -m harness.prepare` is asked for, checked before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.values import whole_number
from harness.errors import UserError
from harness.training.rows import kind_of

DOMAINS = ("math", "code", "science")
REVISION = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Options:
    """The command line."""

    source: str
    tokenizer: str
    output: Path
    revision: str | None = None
    split: str = "train"
    subset: str | None = None
    instruction: str = ""
    domains: tuple[str, ...] = ("math",)
    tokenizer_revision: str | None = None
    max_tokens: int = 2048
    limit: int | None = None
    seed: int = 0
    benchmarks: tuple[str, ...] | None = None  # None: all
    data_dir: str | None = None
    ngram: int = 13
    overlap: str = "remove"


def parse(arguments: Sequence[str]) -> Options:
    """`key=value` arguments; UserError names the one that is wrong."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    known = set(Options.__dataclass_fields__)
    if unknown := [key for key in given if key not in known]:
        raise UserError(f"unknown option {unknown[0]!r}; known: {', '.join(sorted(known))}.")
    if missing := [key for key in ("source", "tokenizer", "output") if not given.get(key)]:
        raise UserError(f"{missing[0]}=… is missing; see python -m harness.prepare --help.")
    values: dict[str, Any] = dict(given)
    for key in {"max_tokens", "limit", "seed", "ngram"} & set(given):
        values[key] = whole_number(key, given[key])
        if values[key] < (0 if key == "seed" else 1):
            raise UserError(f"{key}={given[key]}: must be positive.")
    for key in {"domains", "benchmarks"} & set(given):
        values[key] = tuple(name for name in given[key].split(",") if name)
    options = Options(**{**values, "output": Path(given["output"])})
    if unknown := [name for name in options.domains if name not in DOMAINS]:
        raise UserError(f"domains={given['domains']!r}: {unknown[0]!r} is none of {', '.join(DOMAINS)}.")
    if options.overlap not in ("remove", "keep"):
        raise UserError(f"overlap={options.overlap!r}: must be remove or keep.")
    if options.output.suffix != ".jsonl" or not options.output.resolve().parent.is_dir():
        raise UserError(f"output={str(options.output)!r}: must be a .jsonl file in a folder that exists.")
    if kind_of(options.source) == "hub" and not REVISION.fullmatch(options.revision or ""):
        raise UserError(f"source={options.source!r} is a Hub data set: give revision=<its commit, 40 hex digits>.")
    return options
