"""`python -m harness.grade task=NAME input=FILE.jsonl output=FILE.jsonl`: grades stored responses without a model.

Every row of the input becomes a row of the output, in the same order and with its fields kept; the verdict is added. A
row that cannot be graded is reported with its line number, gets the field "error" instead, and the rest is graded. The
output appears under its name when it is complete. Exit code: 0, 1 if a row has no verdict, or 2 if nothing can be
graded at all. A benchmark's name stands for its kind of task: task=gsm8k is task=math.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from harness.console.commands import asks_for_help, exit_code_of
from harness.errors import UserError
from harness.evaluation.row_grading import OWN_OPTIONS, grade_rows, grader_module, task_names


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)

    def command() -> int:
        if asks_for_help(given):
            print(_help())
            return 0
        return int(grade_rows(_options(given)) > 0)

    return exit_code_of(command)


def _options(arguments: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for argument in arguments:
        name, separator, value = argument.partition("=")
        if not separator or not name:
            raise UserError(
                f"{argument!r} is not an option of the form name=value; see python -m harness.grade --help."
            )
        if name in options:
            raise UserError(f"the option {name!r} is given twice.")
        options[name] = value
    if missing := [name for name in OWN_OPTIONS if not options.get(name)]:
        raise UserError(f"the option {missing[0]}=... is missing; see python -m harness.grade --help.")
    return options


def _help() -> str:
    lines = [__doc__ or "", "Tasks, and what a row holds:"]
    for name in task_names():
        module = grader_module(name)
        options = "".join(f" [{option}={default or '...'}]" for option, default in module.OPTIONS.items())
        lines += [f"  task={name}{options}", f"      {module.FIELDS}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
