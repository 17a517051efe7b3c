"""`python -m harness.report FOLDER… [output=FILE]`: one self-contained HTML page that shows a comparison, or several.

FOLDER holds run folders, as `python -m harness.run` leaves them, or a published runs.jsonl, whose page has the tables
and intervals but no curves and texts. Several folders stand on one page in short, with what holds where: a regime map
where they form one. The page is written to report.html in FOLDER (of several: in the folder that they are all in) or to
FILE. Exit code: 0, or 2 for bad input.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from harness.config.decodings import ORDER_BY
from harness.console.commands import Parser, exit_code_of
from harness.errors import UserError
from harness.files import write_text

FILE_NAME = "report.html"
KEY = re.compile(r"[a-z_]+=")  # begins a key=value text


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    return exit_code_of(lambda: _run(_parse(arguments)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("report", __doc__)
    parser.add_argument(
        "folders",
        nargs="*",
        metavar="FOLDER",
        help="results/<setting>-<hash8>, or a folder with a published runs.jsonl; several stand on one page",
    )
    parser.add_argument(  # for the help text: whatever has a = behind a name is taken out of the folders
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
    given = [*options.folders, *options.values]
    texts = [text for text in given if KEY.match(text) and not Path(text).exists()]
    folders = [Path(text) for text in given if text not in texts]
    values = _pairs(texts, "output=FILE")
    unknown = sorted(set(values) - {"output"})
    if unknown:
        raise UserError(f"unknown key {unknown[0]!r}; known: output=FILE.")
    if "output" in values and options.output is not None:
        raise UserError("output= and --output are both given; give one of them.")
    if not folders:
        raise UserError("no folder is given; name a comparison, such as results/<setting>-<hash8>.")
    repeated = [folder for folder, count in Counter(folder.resolve() for folder in folders).items() if count > 1]
    if repeated:
        raise UserError(f"{repeated[0]} is given twice; give it once.")
    place = Path(os.path.commonpath([folder.resolve() for folder in folders])) if len(folders) > 1 else folders[0]
    output = options.output or Path(values.get("output", place / FILE_NAME))
    protocols = _pairs(options.protocol, "TASK=HASH")
    chosen = "".join(f" --protocol {shlex.quote(text)}" for text in options.protocol)
    if options.order_by != ORDER_BY:
        chosen += f" --order-by {shlex.quote(options.order_by)}"
    commands = [f"python -m harness.report {shlex.quote(str(folder))}{chosen}" for folder in folders]
    if len(folders) == 1:
        size = write_report(folders[0], output, commands[0], protocols, order_by=options.order_by)
    else:
        found = list(zip(folders, commands, strict=True))
        size = write_several(found, output, chosen, protocols, order_by=options.order_by)
    print(f"{output} ({size / 1e6:.1f} MB)")
    return 0


def write_report(
    folder: Path, output: Path, command: str, protocols: dict[str, str] | None = None, order_by: str = ORDER_BY
) -> int:
    """Writes the page of `folder` to `output`, whole or not at all; returns its size in bytes."""
    from harness.console.progress import terminal_bar
    from harness.report.page import render_page
    from harness.report.source import load_source

    _check_output(output)
    return _write(output, render_page(load_source(folder, command, protocols, order_by), terminal_bar))


def write_several(
    folders: Sequence[tuple[Path, str]],
    output: Path,
    chosen: str,
    protocols: dict[str, str] | None = None,
    order_by: str = ORDER_BY,
) -> int:
    """`write_report` of several folders, each with the command of its own page; `chosen`: the options behind them."""
    from harness.console.progress import terminal_bar
    from harness.report.several import render_several
    from harness.report.source import load_source

    _check_output(output)
    sources = [load_source(folder, command, protocols, order_by) for folder, command in folders]
    command = f"python -m harness.report {shlex.join(str(folder) for folder, _ in folders)}{chosen}"
    return _write(output, render_several(sources, command, terminal_bar))


def _check_output(output: Path) -> None:
    if output.is_dir():
        raise UserError(f"{output} is a folder; name a file, such as {output / FILE_NAME}.")


def _write(output: Path, page: str) -> int:
    try:
        write_text(output, page)
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}); choose a writable file.") from error
    return output.stat().st_size


if __name__ == "__main__":
    sys.exit(main())
