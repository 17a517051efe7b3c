"""`python -m harness.compare A B`: two runs or folders side by side; with --baseline B a regression test.

A and B are run folders (`…/tropd/seed0`), a method's folder (`…/tropd`), comparison folders or published ones
(`results/tiny_cpu`; `results/tiny_cpu/tropd` is a row of it). The first form prints what differs in settings, knobs and
versions, and the paired difference on what both have: exit code 0. With --baseline every score of A is held against the
95 % interval of the same row in B: exit code 0, 1 if one lies outside or a run failed. Bad input: 2.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.console.commands import Parser, exit_code_of


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    return exit_code_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    parser = Parser("compare", __doc__)
    parser.add_argument("a", type=Path, metavar="A", help="a run, a method's folder, a comparison, or a published one")
    parser.add_argument("b", type=Path, metavar="B", nargs="?", help="likewise")
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="B",
        help="hold A's scores against B's intervals; exit code 1 if one is outside",
    )
    options = parser.parse_args(arguments)
    if (options.b is None) == (options.baseline is None):
        parser.error("give either B or --baseline B")

    from harness.results.side_by_side import check_baseline, compare
    from harness.results.terminal import open_console

    if options.baseline is not None:
        return check_baseline(options.a, options.baseline, open_console())
    return compare(options.a, options.b, open_console())


if __name__ == "__main__":
    sys.exit(main())
