"""The 58 constraints of IFBench: the classes of `if-verifiable`, where they agree with the official verifier.

The official verifier (allenai/IFBench, package version 0.2.0) is not on PyPI, and if-verifiable 0.1.2 follows an
earlier state of it. What gives other verdicts is mended here, each with what the official one does: sentences are split
by NLTK, names and keywords are whole words, pronouns include demonstratives and indefinites, positions do not count
punctuation, the span is one of characters, curly quotes are not quotes. `MENDED` lists what differs.
"""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Mapping
from typing import Any, Protocol

from tasks.ifbench.resources import require_nltk_data

PRONOUNS = frozenset(
    re.findall(
        r"\w+",
        "i me we us you he him she her it they them my mine our ours your yours his hers its their theirs myself "
        "ourselves yourself yourselves himself herself itself themselves this that these those who whom whose which "
        "what whoever whomever whatever whichever anybody anyone anything everybody everyone everything nobody "
        "nothing somebody someone something each either neither both all some any none",
    )
)
_PERSON_NAMES = re.compile(r"from this list of person names: (?P<names>.*?) *\.$")


class Checker(Protocol):
    """A constraint of the library: first told its parameters, then asked about texts."""

    def __init__(self, instruction_id: str) -> None: ...

    def build_description(self, **kwargs: Any) -> str: ...

    def get_instruction_args(self) -> Mapping[str, Any] | None: ...

    def get_instruction_args_keys(self) -> list[str]: ...

    def check_following(self, value: str) -> bool: ...


@functools.cache
def checkers() -> dict[str, type[Checker]]:
    """The class of every constraint, by its id. Without NLTK's data it is a UserError, not a row of wrong verdicts."""
    import nltk

    require_nltk_data()
    download, nltk.download = nltk.download, lambda *_, **__: False  # the library downloads while it is imported
    try:
        from if_verifiable.ifbench import INSTRUCTION_DICT, instructions_util
    finally:
        nltk.download = download
    instructions_util.split_into_sentences = nltk.sent_tokenize
    library: dict[str, Any] = dict(INSTRUCTION_DICT)
    for name, check in MENDED.items():
        library[name] = type(f"Mended{library[name].__name__}", (library[name],), {"check_following": check})
    span = library["repeat:repeat_span"]
    library["repeat:repeat_span"] = type(span.__name__, (span,), {"build_description": _build_repeat_span})
    return library


def words_of(text: str) -> list[str]:
    """NLTK's words; punctuation that stands alone is none."""
    import nltk

    return [token for token in nltk.word_tokenize(text) if any(character.isalnum() for character in token)]


def _has_word(text: str, word: str, flags: int = 0) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text, flags) is not None


def _person_names(checker: Any, value: str) -> bool:
    """Names count as whole words: "Leo" is not in "Leonard"."""
    listed = _PERSON_NAMES.search(checker.build_description(N=checker._num_person_names))
    assert listed is not None  # the names stand in the constraint's own description
    return sum(_has_word(value, name) for name in listed["names"].split(", ")) >= checker._num_person_names


def _sentence_keyword(checker: Any, value: str) -> bool:
    """The keyword is a whole word of the N-th sentence, in any case."""
    import nltk

    sentences = nltk.sent_tokenize(value)
    if len(sentences) < checker._keyword_position:
        return False
    return _has_word(sentences[int(checker._keyword_position - 1)], checker._keyword, re.IGNORECASE)


def _pronouns(checker: Any, value: str) -> bool:
    """NLTK's tokens, so that "it's" holds "it"; and more pronouns than the personal ones."""
    import nltk

    tokens = nltk.word_tokenize(value.replace("/", " ").lower())
    return sum(token in PRONOUNS for token in tokens) >= checker._num_pronouns


def _keyword_position(checker: Any, value: str) -> bool:
    """The m-th word of the n-th sentence, where punctuation is no word and case does not matter."""
    import nltk

    sentences, n, m = nltk.sent_tokenize(value), int(checker._n), int(checker._m)
    if len(sentences) < n:
        return False
    words = words_of(sentences[n - 1])
    return len(words) >= m and words[m - 1].lower() == checker._keyword.lower()


def _words_position(checker: Any, value: str) -> bool:
    """The second and the second to last token; one mark at the very end is not counted."""
    import nltk

    tokens = [token.lower() for token in nltk.word_tokenize(value)]
    if len(tokens) < 2:
        return False
    # `in`, not `==`: the official verifier asks whether the token is a substring of the string of all marks
    from_end = 3 if tokens[-1] in string.punctuation else 2
    return len(tokens) >= from_end and tokens[1] == tokens[-from_end] == checker._keyword.lower()


def _build_repeat_span(checker: Any, prompt_to_repeat: str, n_start: float, n_end: float) -> str:
    """An index of 0 is an index; the library takes it for a missing one and draws another at random."""
    if not prompt_to_repeat:
        raise TypeError("the text to repeat is empty")
    checker._prompt_to_repeat, checker._n_start, checker._n_end = prompt_to_repeat, n_start, n_end
    return ""


def _repeat_span(checker: Any, value: str) -> bool:
    """Characters n_start to n_end of the prompt, both included."""
    span = checker._prompt_to_repeat[int(checker._n_start) : int(checker._n_end) + 1]
    return bool(value.strip().lower() == span.strip().lower())


def _title_case(checker: Any, value: str) -> bool:
    """Tokens that do not begin with a letter do not count, and a single letter has to be a capital."""
    import nltk

    for token in nltk.word_tokenize(value):
        if not token[0].isalpha():
            continue
        if token[0].islower() and (len(token) == 1 or token[1:].isupper() or token[1:].islower()):
            return False
    return True


def _quotes_explained(checker: Any, value: str) -> bool:
    """No two quotes touch, and the text does not end in one. Only the straight mark is a quote."""
    text = "".join(value.replace("'\"'", "").split())
    if '""' in text:
        return False
    return not text.strip(string.digits + string.punctuation.replace('"', "")).endswith('"')


def _sentence_alphabet(checker: Any, value: str) -> bool:
    """26 sentences whose first letters are the alphabet."""
    import nltk

    sentences = nltk.sent_tokenize(value)
    letters = "".join(sentence.lstrip()[:1].lower()[:1] for sentence in sentences)
    return len(sentences) == 26 and letters == string.ascii_lowercase


MENDED = {
    "count:person_names": _person_names,
    "sentence:keyword": _sentence_keyword,
    "count:pronouns": _pronouns,
    "words:keywords_specific_position": _keyword_position,
    "words:words_position": _words_position,
    "repeat:repeat_span": _repeat_span,
    "format:title_case": _title_case,
    "format:quote_unquote": _quotes_explained,
    "custom:sentence_alphabet": _sentence_alphabet,
}
