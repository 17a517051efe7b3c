"""`python -m harness COMMAND …` (also installed as `opd`): all commands, and the way to each of them.

`python -m harness run …` is `python -m harness.run …`, and so on; each answers to --help.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from harness.console.commands import exit_code_of
from harness.errors import UserError

COMMANDS = {  # name -> its module, in the order in which a comparison needs them
    "run": "harness.run",
    "leaderboard": "harness.leaderboard",
    "report": "harness.report.__main__",
    "compare": "harness.compare",
    "evaluate": "harness.evaluate",
    "grade": "harness.grade",
    "plan": "harness.plan",
    "diagnose": "harness.diagnose",
    "prepare": "harness.prepare",
    "tune": "harness.tune",
    "own_rates": "harness.own_rates",
    "regime_map": "harness.regime_map",
    "findings": "harness.findings",
    "methods": "harness.methods",
    "tiny": "harness.tiny.__main__",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code of the command."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        return exit_code_of(_show)
    name, *rest = given
    if name not in COMMANDS:
        return exit_code_of(lambda: _refuse(name))
    return importlib.import_module(COMMANDS[name]).main(rest)


def sentence_of(module: str) -> str:
    """What the first sentence of a command's docstring says after the command line, read without importing it."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).rpartition("`: ")[2]


def _show() -> int:
    print(__doc__)
    for name, module in COMMANDS.items():
        print(f"  {name:<13}{sentence_of(module)}")
    return 0


def _refuse(name: str) -> int:
    close = difflib.get_close_matches(name.replace("-", "_"), COMMANDS, n=1, cutoff=0.5)
    meant = f"; did you mean {close[0]}?" if close else "."
    raise UserError(f"there is no command {name!r}{meant} python -m harness lists all of them.")


if __name__ == "__main__":
    sys.exit(main())
