"""`python -m harness.results.embed README.md`: refreshes the tables of a document from the files that they are
generated in.

    <!-- begin results/tiny_cpu/leaderboard.md -->
    ...replaced by the file's text...
    <!-- end -->

`FILE#heading` takes the lines below that heading, up to the next one. `--check` writes nothing and exits with 1 if a
table is out of date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from harness.files import ROOT, write_text

BLOCK = re.compile(r"(<!-- begin ([^\n]+?) -->\n)(?:(?!<!-- ).*\n)*(<!-- end -->)")


def embed(text: str, root: Path) -> str:
    """The document with every block replaced by its file's text."""
    return BLOCK.sub(lambda match: f"{match[1]}{_source(root, match[2]).strip()}\n{match[3]}", text)


def _source(root: Path, target: str) -> str:
    name, _, heading = target.partition("#")
    text = (root / name).read_text(encoding="utf-8")
    if not heading:
        return text
    parts = re.split(r"^#+ (.*)\n", text, flags=re.MULTILINE)  # [before, heading, text, heading, text, ...]
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    if heading not in sections:
        raise KeyError(f"{name} has no heading {heading!r}; it has {', '.join(sections)}.")
    return sections[heading]


def main(arguments: list[str]) -> int:
    """The command."""
    check = "--check" in arguments
    for name in (argument for argument in arguments if argument != "--check"):
        path = Path(name)
        before = path.read_text(encoding="utf-8")
        after = embed(before, ROOT)
        if before != after and check:
            print(f"{path}: a table is out of date; run python -m harness.results.embed {path}", file=sys.stderr)
            return 1
        if before != after:
            write_text(path, after)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
