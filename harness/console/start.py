"""What is looked at before anything else where Python was started with a module of the harness: the version of Python,
and whether the module is a command. Imports nothing of the harness, and runs on an older Python too.
"""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path

OLDEST = (3, 11)  # of Python, as pyproject.toml has it
BAD_INPUT = 2
PACKAGE = Path(__file__).resolve().parents[1]
GUARD = 'if __name__ == "__main__":'  # of a module that is a program
ANSWERS = "exit_code_of("  # of a command, which answers an interrupt with one line


def check_start() -> None:
    """Ends the process with one sentence for a Python that is too old, a file that is run by its path, and a module
    that is no command. Of a command, an interrupt waits until it has been imported.
    """
    if sys.version_info < OLDEST:
        _end(f"the harness needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and this is {sys.version.split()[0]}.")
    arguments = getattr(sys, "argv", [])
    if arguments[:1] == ["-m"]:  # Python is looking for the module
        _check_module(_named_module())
        return
    program = sys.modules.get("__main__")
    path = getattr(program, "__file__", None)
    if path is None or getattr(program, "__spec__", None) is not None:
        return
    file = Path(path).resolve()
    checkouts = [folder.parent for folder in file.parents if (folder / "console" / "start.py").is_file()]
    if checkouts:  # perhaps another one than this file is of
        _end(_way_of(file, checkouts[0], arguments[1:]))


def _named_module() -> str:
    """What follows -m on Python's own command line; empty if it cannot be told."""
    given = sys.orig_argv
    place = given.index("-m") + 1 if "-m" in given else len(given)
    return given[place] if place < len(given) else ""


def _check_module(name: str) -> None:
    file = _file_of(name)
    if file is None:  # Python says itself that there is none
        return
    text = file.read_text(encoding="utf-8")
    if GUARD not in text:
        _end(f"{name} is a part of the harness and no command; python -m harness lists the commands.")
    if ANSWERS in text:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until `exit_code_of`


def _file_of(name: str) -> Path | None:
    """The file that `-m name` runs."""
    first, *parts = name.split(".")
    if first != PACKAGE.name:
        return None
    place = PACKAGE.joinpath(*parts)
    found = (place / "__main__.py", place.with_suffix(".py"))
    return next((file for file in found if file.is_file()), None)


def _way_of(file: Path, checkout: Path, arguments: list[str]) -> str:
    """How a file that was run by its path is run."""
    parts = file.relative_to(checkout).with_suffix("").parts
    name = ".".join(part for part in parts if part != "__main__")
    text = file.read_text(encoding="utf-8")
    if GUARD not in text or ANSWERS not in text:
        return f"{file.name} is a part of the harness and no command; python -m harness lists the commands."
    return f"a command is started by its name: {shlex.join(['python', '-m', name, *arguments])}"


def _end(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    raise SystemExit(BAD_INPUT)
