"""`python -m harness.leaderboard FOLDER [--publish DEST]`: rebuilds and prints the table of a comparison.

FOLDER holds run folders, or one published runs.jsonl. leaderboard.md, .json, .csv and .tex are written into it.
Published tables (results/reference) of the same Setting stand in blocks of their own; --reference TABLE names others.
--publish DEST writes what a table needs (runs.jsonl and the table) to a folder that is small enough to commit;
the table can be rebuilt there. Runs that DEST holds and FOLDER does not stay, so that a comparison can be published
in pieces. Exit code: 0, or 2 for bad input.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.config.decodings import ORDER_BY
from harness.console.commands import Parser, exit_code_of


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    return exit_code_of(lambda: _run(_parse(arguments)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("leaderboard", __doc__)
    parser.add_argument("folder", type=Path, help="results/<setting>-<hash8>, or a folder with a published runs.jsonl")
    parser.add_argument("--publish", type=Path, metavar="DEST", help="also write runs.jsonl and the table to DEST")
    parser.add_argument(
        "--protocol",
        type=_parse_protocol,
        action="append",
        default=[],
        metavar="TASK=HASH",
        help="the protocol of a task or column (arithmetic, arithmetic@greedy) to show alone; may be repeated",
    )
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="TABLE",
        help="a published table of results/reference to show beside the comparison, in place of those of its setting",
    )
    parser.add_argument(
        "--order-by",
        default=ORDER_BY,
        metavar="DECODING",
        help=f"of a task's decodings the one that rows are ordered by (default: {ORDER_BY})",
    )
    return parser.parse_args(arguments)


def _parse_protocol(text: str) -> tuple[str, str]:
    task, separator, protocol = text.partition("=")
    if not (task and separator and protocol):
        raise argparse.ArgumentTypeError(f"{text!r} is not TASK=HASH")
    return task, protocol


def _run(options: argparse.Namespace) -> int:
    from harness.results.printing import print_leaderboard
    from harness.results.publish import publish, rebuild_command, rebuild_leaderboard

    protocols = dict(options.protocol)
    chosen = "".join(f" --protocol {shlex.quote(f'{task}={name}')}" for task, name in protocols.items())
    command = rebuild_command(options.folder, options.reference, options.order_by) + chosen
    board = rebuild_leaderboard(options.folder, command, protocols, options.reference, order_by=options.order_by)
    if options.publish is not None:
        publish(options.folder, options.publish, protocols, options.reference, order_by=options.order_by)
    print_leaderboard(board)
    return 0


if __name__ == "__main__":
    sys.exit(main())
