"""Which training prompts share an n-gram of words with a problem of a benchmark.

The rule is GPT-3's (arXiv 2005.14165, appendix C): text is lowercased, its words are runs of letters and digits, and a
prompt overlaps a problem if any n consecutive words of the problem, n = 13, stand in it. A problem of 8 to n − 1 words
counts as one gram; of fewer words, it cannot be told from chance and is left out. A gram that stands in more than ten
prompts is a common phrase ("where m and n are relatively prime positive integers") and says nothing. Rewordings are not
found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

SHORTEST = 8  # words; the smallest n that GPT-3's check used
COMMON = 10  # prompts; a gram in more of them is a common phrase
_WORD = re.compile(r"[^\W_]+")

Gram = tuple[str, ...]


def words_of(text: str) -> list[str]:
    """The words that count."""
    return _WORD.findall(text.lower())


def grams_of(words: Sequence[str], n: int) -> Iterator[Gram]:
    """Every n consecutive words; none where there are fewer."""
    return (tuple(words[start : start + n]) for start in range(len(words) - n + 1))


@dataclass
class OverlapIndex:
    """The n-grams of benchmarks, and what was found of them."""

    n: int = 13
    problems: Counter[str] = field(default_factory=Counter)  # indexed, by benchmark
    too_short: Counter[str] = field(default_factory=Counter)  # left out, by benchmark
    # by length: benchmark and problem
    _grams: dict[int, dict[Gram, set[tuple[str, str]]]] = field(default_factory=dict)

    def add(self, benchmark: str, problems: Iterable[str]) -> None:
        """Adds a benchmark's problems; equal texts are one."""
        for text in dict.fromkeys(problems):
            words = words_of(text)
            if len(words) < SHORTEST:
                self.too_short[benchmark] += 1
                continue
            self.problems[benchmark] += 1
            length = min(self.n, len(words))
            for gram in grams_of(words, length):
                self._grams.setdefault(length, {}).setdefault(gram, set()).add((benchmark, text))

    def find(self, prompt: str) -> set[Gram]:
        """The grams of benchmarks that stand in the prompt."""
        words = words_of(prompt)
        return {gram for length, grams in self._grams.items() for gram in grams_of(words, length) if gram in grams}

    def overlaps(self, hits: Mapping[str, set[Gram]]) -> dict[str, set[tuple[str, str]]]:
        """(benchmark, problem) of every problem that a prompt overlaps, for those that overlap any.

        Args: hits, what `find` gave for every prompt, by its id: which grams are common is seen in all of them
            together.
        """
        counts = Counter(gram for grams in hits.values() for gram in grams)
        found: dict[str, set[tuple[str, str]]] = {}
        for name, grams in hits.items():
            for gram in grams:
                if counts[gram] <= COMMON:
                    found.setdefault(name, set()).update(self._grams[len(gram)][gram])
        return found
