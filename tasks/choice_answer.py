r"""The grader of multiple-choice answers: pure functions from a response and the letter of the gold option to a verdict.

After the thinking, the last of these counts:

    \boxed{A}  \boxed{\text{A}}  \boxed{(A)}  \boxed{A. newton}  \boxed{\text{Option A}}
    Answer: A   Answer: $A$   **Answer: A**   **Answer:** (A)   Answer: \boxed{A}   Answer: "A"
    answer is A   answer is (A)   correct option is **A**   correct choice: A

Without any of them, a response whose last line is nothing but the letter: `A`, `(A)`, `**A.**`. Two letters at the same
place ("Answer: A or B") are no answer.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.math_answer import after_thinking

Reason = Literal["equal", "different", "no_answer", "unfinished_thinking"]
LETTERS = "ABCD"

# bounded, so that a response that repeats the beginning of a form takes linear time
_DECORATION = r"(?:[\s*_`$({\['\"“‘]|\\(?:text|textbf|textrm|mathrm|mathbf|boxed|fbox|bf|rm)|\\[(\[]){0,12}"
_LETTER = rf"([{LETTERS}{LETTERS.lower()}])(?![A-Za-z0-9]|['’][A-Za-z])"
_BOX = r"\\(?:boxed|fbox)\s{0,3}\{" + _DECORATION + r"(?:(?:option|choice|letter)\s{1,3})?" + _LETTER
_LABEL = r"\banswer\b(?:\s{1,3}(?:choice|option|letter))?[*_`\s]{0,12}[:：]" + _DECORATION + _LETTER
_HIT = re.compile(f"{_BOX}|{_LABEL}", re.I)
_SENTENCE = re.compile(
    r"\b(?:answer|option|choice)\b[*_`\s]{0,12}(?:(?:is|would be|must be|should be)\b|:)[\s:]{0,12}"
    rf"(?:(?:option|choice|letter)\b)?({_DECORATION}){_LETTER}",
    re.I,
)
_SECOND_LETTER = re.compile(
    r"(?:[)}\]$*_`\s]|\\[)\]]){0,12}(?:,|/|&|\bor\b|\band\b)(?:[\s*_`$({\[]|\\text){0,12}(?:option\s)?"
    rf"[{LETTERS}](?![A-Za-z0-9'’])"
)
_ALONE = re.compile(rf"[\s*_`$(\[]*{_LETTER}[)\]$*_`.:\s]*")
_MAX_ALONE_CHARS = 20  # of a last line that is nothing but the letter


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
    letter = last_letter(answer_text)
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
    hits = [(match.end(), next(filter(None, match.groups()))) for match in _HIT.finditer(text)]
    for match in _SENTENCE.finditer(text):
        # "the answer is a number" and "the answer is A"
        opened, letter = match.groups()
        if letter.isupper() or any(bracket in opened for bracket in "({["):
            hits.append((match.end(), letter))
    if not hits:
        last_line = text.rstrip().rsplit("\n", 1)[-1]
        alone = _ALONE.fullmatch(last_line) if len(last_line) <= _MAX_ALONE_CHARS else None
        return alone[1].upper() if alone else None
    end, letter = max(hits)
    return None if _SECOND_LETTER.match(text, end) else letter.upper()


def majority_letter_is_correct(letters: Sequence[str | None], gold: str) -> bool:
    """Whether the most frequent letter is accepted; of equally frequent ones the first given wins."""
    votes = Counter(letter for letter in letters if letter is not None)  # keeps the order of first occurrence
    return bool(votes) and max(votes, key=votes.__getitem__) in accepted_letters(gold)
