"""`python -m harness.regime_map FOLDER… [--output FILE.md]`: which method wins in which regime, at which rate, from
finished comparisons.

A FOLDER is a comparison's, or a published one (runs.jsonl). A regime is a student and its teacher; a replicate is a
seed with a student of its own. A cell of the map is a regime at one learning rate and schedule. In every cell the
methods that all cells of the regime have are compared at equal steps, and at equal cost: student tokens, and estimated
operations (harness.results.flops), in runs of their own: give folders of setting.student_tokens=… and operations=… too.
Several decodings of the task stand side by side.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.console.commands import Parser, exit_code_of, write_and_print


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    return exit_code_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    parser = Parser("regime_map", __doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="comparison folders, published or not")
    parser.add_argument("--task", default="arithmetic", help="the benchmark (default: arithmetic)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the map to this file")
    options = parser.parse_args(arguments)

    from harness.results.cells import load_decodings, of_common_methods
    from harness.results.regimes import render_decodings

    loaded = load_decodings(options.folders, options.task)
    cells = {decoding: of_common_methods(found) for decoding, found in loaded.items()}
    return write_and_print(render_decodings(cells, options.task), options.output)


if __name__ == "__main__":
    sys.exit(main())
