"""`python -m harness.findings CLAIMS.yaml FOLDER… [--output FILE.md]`: claims about methods, one by one, against
finished comparisons.

    - claim: Forward KL on the outliers is better than clipping them.
      source: TrOPD (arXiv 2606.01249), Table 1
      family: outliers          # claims of one family are corrected together
      a: fkl_outlier            # labels of two rows; a: "*" is every other method
      b: clip_outlier
      expected: higher          # what is claimed of a against b: higher | lower
      quantity: score           # the default; or a key of metrics.jsonl, its mean over the second half of the steps;
                                # distance/reverse or distance/forward, nats per token; or eval/TASK@STEP, a
                                # development score

A claim is tested in every cell (a regime at one learning rate and schedule, see harness.regime_map) on the replicates
that both methods have, at equal steps, or at one budget where no runs had steps alone. Scores are compared as in a
leaderboard (paired by replicate and problem), metrics by Student's t over replicates. A difference is resolved, in
either direction, where its p-value is at most 5 % after Holm's correction over all cells of all claims of its family;
the intervals stand alone. A summary counts the verdicts. Several decodings of the task stand side by side, each
corrected by itself.
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
    parser = Parser("findings", __doc__)
    parser.add_argument("claims", type=Path, metavar="CLAIMS.yaml")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="comparison folders, published ones")
    parser.add_argument("--task", default="arithmetic", help="the benchmark (default: arithmetic)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the text to this file")
    options = parser.parse_args(arguments)

    from harness.results.cells import load_decodings
    from harness.results.claims import load_claims, render_decodings

    cells = load_decodings(options.folders, options.task)
    return write_and_print(render_decodings(load_claims(options.claims), cells), options.output)


if __name__ == "__main__":
    sys.exit(main())
