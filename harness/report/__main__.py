"""`python -m harness.report FOLDER [output=FILE]`: one self-contained HTML page that shows a comparison.

FOLDER holds run folders, as `python -m harness.run` leaves them, or a published runs.jsonl, whose page has the tables
and intervals but no curves and texts. The page is written to FOLDER/report.html or to FILE. Exit code: 0, or 2 for bad
input.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.config.decodings import ORDER_BY
from harness.console.commands import Parser, exit_code_of
from harness.errors import UserError
from harness.files import write_text

FILE_NAME = "report.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    return exit_code_of(lambda: _run(_parse(arguments)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("report", __doc__)
    parser.add_argument("folder", type=Path, help="results/<setting>-<hash8>, or a folder with a published runs.jsonl")
    parser.add_argument(
        "values", nargs="*", metavar="output=FILE", help=f"where to write it; FOLDER/{FILE_NAME} by default"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="the same")
    parser.add_argument(
        "--protocol",
        action="append",
        default=[],
        metavar="TASK=HASH",
        help="the protocol of a task or column (arithmetic, arithmetic@greedy) to show alone; may be repeated",
    )
    parser.add_argument(
        "--order-by",
        default=ORDER_BY,
        metavar="DECODING",
        help=f"of a task's decodings the one that rows are ordered by (default: {ORDER_BY})",
    )
    return parser.parse_args(arguments)


def _pairs(texts: Sequence[str], form: str) -> dict[str, str]:
    """key=value texts as a mapping; UserError names the one that is none."""
    for text in texts:
        key, separator, value = text.partition("=")
        if not (key and separator and value):
            raise UserError(f"{text!r} is not {form}; write it like that.")
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def _run(options: argparse.Namespace) -> int:
    values = _pairs(options.values, "output=FILE")
    unknown = sorted(set(values) - {"output"})
    if unknown:
        raise UserError(f"unknown key {unknown[0]!r}; known: output=FILE.")
    if "output" in values and options.output is not None:
        raise UserError("output= and --output are both given; give one of them.")
    output = options.output or Path(values.get("output", options.folder / FILE_NAME))
    protocols = _pairs(options.protocol, "TASK=HASH")
    chosen = "".join(f" --protocol {shlex.quote(text)}" for text in options.protocol)
    if options.order_by != ORDER_BY:
        chosen += f" --order-by {shlex.quote(options.order_by)}"
    command = f"python -m harness.report {shlex.quote(str(options.folder))}{chosen}"
    size = write_report(options.folder, output, command, protocols, order_by=options.order_by)
    print(f"{output} ({size / 1e6:.1f} MB)")
    return 0


def write_report(
    folder: Path, output: Path, command: str, protocols: dict[str, str] | None = None, order_by: str = ORDER_BY
) -> int:
    """Writes the page of `folder` to `output`, whole or not at all; returns its size in bytes."""
    if output.is_dir():
        raise UserError(f"{output} is a folder; name a file, such as {output / FILE_NAME}.")

    from harness.console.progress import terminal_bar
    from harness.report.page import render_page
    from harness.report.source import load_source

    page = render_page(load_source(folder, command, protocols, order_by), terminal_bar)
    try:
        write_text(output, page)
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}); choose a writable file.") from error
    return output.stat().st_size


if __name__ == "__main__":
    sys.exit(main())
