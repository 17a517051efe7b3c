"""`python -m harness.plan setting=… hardware=…`: what a comparison takes before it is run, and what binds.

    hardware=h100_x8       a file of conf/hardware/; every other argument is harness.run's
    python -m harness.plan results/…/seed0 hardware=…     the prediction beside what that run measured

Memory is that of harness.planning.memory. Seconds are floors (the work over the hardware's peak, bytes for decoding,
operations for scoring and updating), divided by the shares of the peak that such work reaches (compute_share,
bandwidth_share). Every completion counts at full length. Exit code: 0, or 2 for bad input.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.config.sweep import planned_runs
from harness.console.commands import exit_code_of, or_help
from harness.errors import UserError
from harness.planning.hardware import load_hardware


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    return exit_code_of(or_help(__doc__, _run, arguments))


def _run(arguments: Sequence[str]) -> int:
    name = next((a.partition("=")[2] for a in arguments if a.startswith("hardware=")), "")
    folders = [Path(a) for a in arguments if "=" not in a]
    rest = [a for a in arguments if "=" in a and not a.startswith("hardware=")]
    if not name:
        raise UserError("hardware=… is missing; see python -m harness.plan --help.")
    hardware = load_hardware(name)
    runs = planned_runs([*rest, "method=opd", "seed=0"] if folders else rest)

    from harness.planning.forecast import beside, show

    if folders:
        return max(beside(folder, runs[0], hardware) for folder in folders)
    return show(runs, hardware, name)


if __name__ == "__main__":
    sys.exit(main())
