"""`python -m harness.own_rates results/tuning/NAME.yaml FOLDER…`: a table in which every method has its own best
learning rate.

The learning rate belongs to the Setting, so such rows are of several comparisons, and no leaderboard holds them. Here
each row says its rate, the rates are those that harness.tune chose, and the runs may differ in nothing else. There is
a table for each decoding of the task.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.console.commands import Parser, exit_code_of
from harness.errors import UserError
from harness.types import UNTRAINED


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    return exit_code_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    parser = Parser("own_rates", __doc__)
    parser.add_argument("tuning", type=Path, metavar="TUNING", help="results/tuning/<setting>.yaml")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="comparison folders, one for each rate")
    parser.add_argument("--task", default="arithmetic", help="the benchmark (default: arithmetic)")
    options = parser.parse_args(arguments)

    from harness.results.collect import columns_of, load_records, with_names
    from harness.results.columns import title_of
    from harness.results.own_rates import choose, load_tuning, render

    tuning = load_tuning(options.tuning)
    records = [record for folder in options.folders for record in load_records(folder)]
    trained = [r for r in records if r.method not in UNTRAINED and r.status == "completed"]
    if not trained:
        raise UserError("none of the folders holds a completed run of a method; give folders of finished comparisons.")
    trained = with_names(trained)
    columns = columns_of(trained, options.task)
    print("\n".join(render(choose(trained, tuning, name), tuning, title_of(name)) for name in columns), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
