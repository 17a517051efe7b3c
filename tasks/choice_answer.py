r"""The grader of multiple-choice answers: pure functions from a response and the letter of the gold option to a
verdict.

After the thinking, the last of these counts:

    \boxed{A}  \boxed{\text{A}}  \boxed{(A)}  \boxed{A. newton}  \boxed{\text{Option A}}  \boxed A
    Answer: A   Answer: $A$   **Answer: A**   **Answer:** (A)   Answer: <A>   Answer: "A"   <answer>A</answer>
    answer is A   answer is (A)   correct option is **A**   correct choice: A

Without any of them, a response whose last line is nothing but the letter, or the letter and its option: `A`, `(A)`,
`**A.**`, `A) newton`, or that ends in one behind a colon. Two letters at the same place ("Answer: A or B") are no
answer; nor is a letter that goes on as prose ("Answer: A good guess", "D-glucose") or as a formula (`\boxed{A + B =
C}`).
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.math_extraction import after_thinking, boxes, without_special_tokens
from tasks.math_neighbours import flat
from tasks.math_notation import notation

Reason = Literal["equal", "different", "no_answer", "unfinished_thinking"]
LETTERS = "ABCD"

_AMBIGUOUS = "?"  # stands for a place that names several letters, or one and prose
_MAX_BOX_CHARS = 300  # of a box that gives an option; longer is not read
_MAX_LINE_CHARS = 120  # of a last line that is an option and its text
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,3}\(?([A-Da-d])\)?(?![A-Za-z0-9_^])")
_BOX_MARK = re.compile(r"\x01([A-D?])")
_MARKUP = re.compile(
    "|".join(
        (
            r"\*{1,3}",  # Markdown: bold type, code, underlines, headings
            r"`{1,3}",
            r"(?<![A-Za-z0-9])_{1,2}(?=[A-Za-z(])",
            r"(?<=[A-Za-z.)])_{1,2}(?![A-Za-z0-9{_])",
            r"^#{1,6}\s",
            r"</?(?:b|i|u|em|strong|span|p|br)\s?/?>",  # HTML, in small letters: <B> is an option
            r"\\[(\[\])]",  # TeX's math mode
            r"\$",
        )
    ),
    re.M,
)
_ANSWER_TAG = re.compile(r"<answer>\s{0,5}([^<>]{1,80}?)\s{0,5}</answer>", re.I)
_STYLE = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|mathrm|mathbf|mathit|mathsf|mathcal|bf|rm|it|large|Large|LARGE|huge|Huge)"
    r"(?![A-Za-z])\s{0,3}\{?"
)
_OPEN = r"(?:[\s(\[{<\"'“‘«「【:：→=~]|->|=>){0,12}"  # bounded, so that a response that repeats it takes linear time
_LABEL_WORD = r"(?:(?:the\s)?(?:option|choice|letter|answer)\b)?"
_LETTER = r"([A-Da-d])(?![A-Za-z0-9_^'’])"
_LABEL = re.compile(
    rf"\banswer\b(?:\s{{1,3}}(?:choice|option|letter))?\s{{0,12}}[:：]{_OPEN}{_LABEL_WORD}{_OPEN}{_LETTER}", re.I
)
_SENTENCE = re.compile(
    r"\b(?:answer|option|choice)\b\s{0,12}(?:(?:is|would be|must be|should be)\b|:)"
    rf"{_OPEN}{_LABEL_WORD}{_OPEN}{_LETTER}",
    re.I,
)
_CLOSE = re.compile(r"[)\]}>\"'”’\s]{0,12}")
_SECOND_LETTER = re.compile(
    rf"{_CLOSE.pattern}(?:,|/|&|\bor\b|\band\b)[\s({{\[<]{{0,12}}(?:option\s)?[{LETTERS}](?![A-Za-z0-9'’])"
)
# what may follow a letter on its line; anything else makes it the beginning of a sentence or of a name
_CONTINUES = re.compile(
    r"because\b|since\b|as\b|due\b|[-–—]\s|\(|with\b|for\b|is correct\b|\x01|,|;|!|\?|\.|:|$|\n|✓|✅", re.I
)
_FORMULA = re.compile(r"[ \t]{0,3}(?:[+=*/^_<≤≥|×·]|\\(?:times|cdot|cup|cap|to|le|ge|in|rightarrow)|[-–—]\S)")
_OPTION_LINE = re.compile(
    rf"{_OPEN}{_LABEL_WORD}\s?\(?([{LETTERS}])(?:(?:\)|\.|:|\s[-–—])\s{{1,3}}(?=\S)|\s{{1,3}}(?=\())"
)
_ALONE = re.compile(
    rf"(?:[-•>]\s)?{_OPEN}(?:(?:the\s)?(?:correct\s)?(?:option|choice|letter|answer)\s?(?:is\s|[:：]\s?)?)?{_OPEN}"
    rf"([{LETTERS}{LETTERS.lower()}])[)\]}}>\"'”’.:!\s]*",
    re.I,
)
_AT_THE_END = re.compile(
    rf"(?:[:：]|\b(?:choose|pick|select|conclude|with)\b){_OPEN}{_LABEL_WORD}\s?\(?([{LETTERS}])\)?[.!\s\"'”’)]{{0,5}}$",
    re.I,
)
# "C. elegans" is a worm and no option: species of the genera that are shortened to the letter of an option
_SPECIES = re.compile(
    r"\s(?:elegans|albicans|difficile|botulinum|perfringens|tetani|trachomatis|diphtheriae|jejuni|neoformans|reinhardtii|"
    r"melanogaster|rerio|discoideum|radiodurans|pulex|simulans|subtilis|anthracis|cereus|burgdorferi|pertussis|fragilis|"
    r"thuringiensis|rapa|napus|oleracea|thaliana|fumigatus|niger|nidulans|baumannii|tumefaciens|aegypti|gambiae|mellifera|"
    r"flavus|oryzae|sativa|familiaris|lupus|sapiens|burnetii|glutamicum|crescentus|briggsae|japonica)\b"
)


@dataclass(frozen=True)
class Verdict:
    """What the grader thinks of one response."""

    correct: bool
    extracted: str | None  # the letter, capital; None: no answer was given
    reason: Reason


def grade(response: str, gold: str) -> Verdict:
    """Compares the letter that the response gives with `gold`, which may name several accepted ones ("AC")."""
    answer_text = after_thinking(response)
    if answer_text is None:
        return Verdict(False, None, "unfinished_thinking")
    return verdict_of(last_letter(answer_text), gold)


def verdict_of(letter: str | None, gold: str) -> Verdict:
    """The verdict on an extracted letter."""
    if letter is None:
        return Verdict(False, None, "no_answer")
    correct = letter in accepted_letters(gold)
    return Verdict(correct, letter, "equal" if correct else "different")


def accepted_letters(gold: str) -> str:
    """The letters of a gold such as "B", "(b)" or "AC"; a ValueError if it is something else."""
    letters = re.sub(r"[\s().,]", "", gold).upper()
    if not letters or set(letters) - set(LETTERS):
        raise ValueError(f"the answer must be one of {', '.join(LETTERS)}, not {gold!r}")
    return letters


def last_letter(text: str) -> str | None:
    """The option that the text decides for, by the forms above."""
    plain = _plain(text)
    end, letter = max(_hits(plain), default=(0, ""))
    if letter:
        return None if letter == _AMBIGUOUS or _SECOND_LETTER.match(plain, end) else letter
    return _of_last_line(plain)


def _plain(text: str) -> str:
    """The text without markup; a box that gives an option becomes a mark, one with a formula goes."""
    text = without_special_tokens(text).strip()
    pieces, position = [], 0
    for box in sorted(boxes(text), key=lambda box: box.start):
        if box.start >= position:
            pieces += [text[position : box.start], _mark(text[box.inside : box.end])]
            position = box.end + 1
    text = _BARE_BOX.sub(lambda match: f"\x01{match[1].upper()}", "".join([*pieces, text[position:]]))
    text = _ANSWER_TAG.sub(lambda match: f"\nAnswer: {match[1]}\n", text)
    text = _STYLE.sub("", _MARKUP.sub("", text))
    return re.sub(r"\x01([A-D?])[\s}]{0,9}(?:or|and|,|/|&)[\s{}]{0,9}\x01(?!\1)[A-D?]", f"\x01{_AMBIGUOUS}", text)


def _mark(content: str) -> str:
    """What a box says: the mark of its letter, or nothing."""
    plain = flat(notation(content)).rstrip("\\ ") if len(content) <= _MAX_BOX_CHARS else ""
    alone = _ALONE.fullmatch(plain)
    if alone and (plain.startswith("'") or not plain.endswith("'")):  # A' is a formula
        return f"\x01{alone[1].upper()}"
    option = _OPTION_LINE.match(plain)
    if option and not _SPECIES.match(plain, option.end() - 1):
        return f"\x01{option[1]}"
    several = re.fullmatch(rf"\(?[{LETTERS}]\)?(?:\s?(?:,|;|/|&|\\land|\\lor|and|or)\s?\(?[{LETTERS}]\)?)+", plain)
    return f"\x01{_AMBIGUOUS}" if several else " "


def _hits(plain: str) -> Iterator[tuple[int, str]]:
    """Where an option is named as the answer, and which; _AMBIGUOUS where a capital letter begins something else."""
    for match in _BOX_MARK.finditer(plain):
        yield match.end(), match[1]
    for pattern, needs_capital in ((_LABEL, False), (_SENTENCE, True)):
        for match in pattern.finditer(plain):
            letter = match[1]
            if _goes_on(plain, match.end()):
                if letter.isupper():
                    yield match.end(), _AMBIGUOUS
            elif letter.isupper() or not needs_capital or any(bracket in match[0] for bracket in "({["):
                yield match.end(), letter.upper()


def _goes_on(plain: str, end: int) -> bool:
    """Whether a letter that ends here is the beginning of a sentence, a formula or a name."""
    if _FORMULA.match(plain, end) and not re.match(r"\s[-–—]\s", plain[end : end + 3]):
        return True
    if plain[end : end + 1] == "." and _SPECIES.match(plain, end + 1):
        return True
    closed = _CLOSE.match(plain, end)
    after = closed.end() if closed else end
    if "\n" in plain[end:after] or re.search(r"[)\]}>]", plain[end:after]):
        return False
    return not (_CONTINUES.match(plain, after) or _SECOND_LETTER.match(plain, end))


def _of_last_line(plain: str) -> str | None:
    """The letter of a last line that is an option, or that ends in one behind a colon."""
    lines = [line.strip() for line in plain.rstrip().rsplit("\n", 8)[-8:] if line.strip()]
    if not lines or len(lines[-1]) > _MAX_LINE_CHARS:
        return None
    last = lines[-1]
    if alone := _ALONE.fullmatch(last):
        return alone[1].upper()
    option = _OPTION_LINE.match(last)
    if option and not _SPECIES.match(last, option.end() - 1):
        listed = len(lines) > 1 and _OPTION_LINE.match(lines[-2])
        return None if listed else option[1]
    ends = _AT_THE_END.search(last)
    return ends[1].upper() if ends else None


def majority_letter_is_correct(letters: Sequence[str | None], gold: str) -> bool:
    """Whether the most frequent letter is accepted; of equally frequent ones the first given wins."""
    votes = Counter(letter for letter in letters if letter is not None)  # keeps the order of first occurrence
    return bool(votes) and max(votes, key=votes.__getitem__) in accepted_letters(gold)
