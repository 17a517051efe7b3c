"""Four checkers that ask what their constraint says, where the official ones ask something else.

The variant is a public one (scitix/sieval, `ifbench_0shot_gen_fixed`, August 2026: "four repaired constraint
checkers"); the constraints are as they were. Each function says what the official checker does instead.
"""

from __future__ import annotations

import functools
import itertools
import re
from typing import Any

from tasks.ifbench.checkers import Checker, checkers, words_of

CLOSING = "\"'”’»)]}"  # may stand behind the mark that ends a sentence
BLANK_LINE = re.compile(r"\r?\n[^\S\r\n]*\r?\n")
VOWELS = frozenset("aeiou")


@functools.cache
def fixed_checkers() -> dict[str, type[Checker]]:
    """The class of every constraint, by its id: four of them mended."""
    library = dict(checkers())
    for name, check in FIXED.items():
        library[name] = type(f"Fixed{library[name].__name__}", (library[name],), {"check_following": check})
    return library


def _line_indent(_: Any, value: str) -> bool:
    """Each line is indented further than the one before. Official: blank lines count, but for every second one."""
    lines = [line for line in value.split("\n") if line.strip()]
    indents = [len(line) - len(line.lstrip(" ")) for line in lines]
    return all(before < after for before, after in itertools.pairwise(indents))


def _sentence_type(_: Any, value: str) -> bool:
    """Two statements for each question, of which there is one at least. Official: none and none are 2:1, and a sentence
    that ends in a quote or a bracket is neither.
    """
    import nltk

    ends = [sentence.rstrip().rstrip(CLOSING).rstrip()[-1:] for sentence in nltk.sent_tokenize(value)]
    return 0 < 2 * ends.count("?") == ends.count(".")


def _words_position(checker: Any, value: str) -> bool:
    """The second word and the second to last. Official: marks count as words, but for one at the very end."""
    words = [word.lower() for word in words_of(value)]
    return len(words) >= 2 and words[1] == words[-2] == checker._keyword.lower()


def _vowels(_: Any, value: str) -> bool:
    """One paragraph with three vowels at most. Official: a line that is broken is a second paragraph."""
    paragraphs = [part for part in BLANK_LINE.split(value.strip()) if part.strip()]
    return len(paragraphs) == 1 and len(VOWELS.intersection(value.lower())) <= 3


FIXED = {
    "format:line_indent": _line_indent,
    "ratio:sentence_type": _sentence_type,
    "words:words_position": _words_position,
    "words:vowel": _vowels,
}
