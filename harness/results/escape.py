"""Texts of others, such as names, knobs and the reasons of failed runs, where people read them: the one home of what is
done to a text before it stands in a terminal, in Markdown, in a spreadsheet or in LaTeX.

HTML is escaped by Jinja (harness.report.page), which shows what `visible` makes of a text.
"""

from __future__ import annotations

import re

_UNSHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
# what begins code, emphasis, a tag, an entity, a formula, a link or the end of a cell; _ within a word is itself
_MARKDOWN = re.compile(
    r"[\\`*~<>|$&]|(?<![^\W_])_|_(?![^\W_])|(?<=\])[(\[:]|(?<=https):|(?<=http):|(?<=www)\.", re.IGNORECASE
)
_FORMULA = tuple("=+-@\t\r")  # a spreadsheet computes a cell that begins with one of these
_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\^{}",
}


class Markdown(str):
    """A text that is Markdown already."""


def visible(text: str) -> str:
    """The text with control characters, invisible and direction-changing ones shown as symbols or code points.

    Tab and line feed stay. A model may write anything; this keeps it readable, a terminal unmoved, and a page valid
    UTF-8.
    """
    return _UNSHOWN.sub(lambda match: _symbol(ord(match[0])), text)


def _symbol(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's control pictures
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def one_line(text: str) -> str:
    """The text as one visible line."""
    return re.sub(r" *[\t\n\u2028\u2029]+ *", " ", visible(text)).strip()


def markdown(text: str) -> Markdown:
    """A text as one line of Markdown that says what it says."""
    return text if isinstance(text, Markdown) else Markdown(_MARKDOWN.sub(r"\\\g<0>", one_line(text)))


def code(text: str) -> Markdown:
    """A text as code in Markdown, whatever backticks it has."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return Markdown(f"{fence}{space}{one_line(text)}{space}{fence}")


def csv_cell(text: str) -> str:
    """A text that no spreadsheet computes."""
    shown = one_line(text)
    return f"'{shown}" if text.startswith(_FORMULA) or shown.startswith(_FORMULA) else shown


def latex(text: str) -> str:
    """A text as one line of LaTeX."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))
