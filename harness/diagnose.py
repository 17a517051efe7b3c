"""`python -m harness.diagnose setting=… [method=a,b,c]`: a pair and the methods' gradients, before any training.

    completions=N   of the student, a prompt each (default 256); all numbers are of these
    batches=N       that they are cut into; the gradients' noise is measured over them (default 8)
    output=FOLDER   where diagnosis.json, diagnosis.md and diagnosis.html go, a folder for each setting
                    (default results/diagnose)

All other arguments are harness.run's; setting=a,b diagnoses several pairs. Nothing is trained. It says how far teacher
and student are apart, where, and by which tokens; what every method's gradient looks like beside those of the exact
reverse and forward KL; and which published comparisons had such numbers. Exit code: 0, or 2 for bad input.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from harness.config.settings import whole_number
from harness.config.sweep import planned_runs
from harness.console.commands import exit_code_of, or_help, quiet_libraries
from harness.errors import UserError
from harness.files import write_json, write_text

OWN = ("completions", "batches", "output")


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    return exit_code_of(or_help(__doc__, _run, arguments))


def _run(arguments: Sequence[str]) -> int:
    own = {key: value for key, _, value in (a.partition("=") for a in arguments) if key in OWN}
    rest = [a for a in arguments if a.partition("=")[0] not in OWN]
    counts = {key: whole_number(key, own[key]) for key in ("completions", "batches") if key in own}
    seeds = [] if any(a.startswith("seed=") for a in rest) else ["seed=0"]
    methods = [] if any(a.startswith(("method=", "experiment=")) for a in rest) else ["method=opd,reopold,eopd,tropd"]
    runs = planned_runs([*rest, *methods, *seeds])
    if len({run.seed for run in runs}) > 1:
        raise UserError("one seed is enough for a diagnosis; give one.")

    from harness.diagnosis.run import Amount, diagnose
    from harness.diagnosis.show import as_markdown, as_page

    quiet_libraries()
    amount, folder = Amount(**counts), Path(own.get("output", "results/diagnose"))
    for name, group in groupby(sorted(runs, key=lambda run: run.setting.name), key=lambda run: run.setting.name):
        of_pair = list(group)
        if len({repr(run.setting) for run in of_pair}) > 1 or len({run.method_name for run in of_pair}) < len(of_pair):
            raise UserError(f"setting {name!r} comes in several versions; diagnose one of them at a time.")
        command = " ".join(["python -m harness.diagnose", *map(shlex.quote, _alone(arguments, name))])
        diagnosis = diagnose(of_pair, amount) | {"command": command}
        text = as_markdown(diagnosis, command)
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_json(folder / name / "diagnosis.json", diagnosis)
        write_text(folder / name / "diagnosis.md", text)
        write_text(folder / name / "diagnosis.html", as_page(diagnosis, command))
        print(text)
    return 0


def _alone(arguments: Sequence[str], name: str) -> list[str]:
    """The command line of one setting of several."""
    return [f"setting={name}" if a.startswith("setting=") else a for a in arguments]


if __name__ == "__main__":
    sys.exit(main())
