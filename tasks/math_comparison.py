r"""Whether two answers say the same, by what they consist of. The gold decides what a bare value stands for.

An answer is read as plain LaTeX (tasks.math_notation), an equality by its last member unless it is false, a value
without its neighbours (tasks.math_neighbours), a collection element by element. What then remains is asked of sympy.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from tasks.math_equivalence import Equivalence, equivalence
from tasks.math_neighbours import bare_value, flat
from tasks.math_notation import TEXT, matching_brace, notation
from tasks.math_numbers import numeral_parts, same_number, squeezed, value_of, without_thousands
from tasks.math_structure import (
    Collection,
    collection,
    is_name,
    is_variable,
    members,
    set_condition,
    split_top,
    with_connectives,
)
from tasks.math_words import LEADING_LABELS, WORD_LEADS, WORD_TRAILS

MAX_ANSWER_CHARS = 2_000  # longer answers (a model in a loop) are compared as they stand
_MAX_ITEMS = 40  # of a collection; longer ones are compared as they stand
_MATH_MODE = re.compile(r"^(?:\$+(?![0-9.])|\\\(|\\\[)|(?:(?<!\\)\$+|\\\)|\\\])$")
_END = re.compile(r"(?:(?<!\\)\\[,;:! ]?|~|\s|\*\*|[.,;:](?![0-9]))+$")  # `25\ ` has lost its space with the box
_START = re.compile(r"^(?:\\[,;:! ]|~|\s|\*\*|\\approx(?![A-Za-z])|=(?!=))+")
_INFIX = re.compile(r"\\(?:choose|over|atop|brack)(?![A-Za-z])")  # {5 \choose 2} needs its braces
_LABEL = r"(?:(?i:option|choice|answer|graph|figure|statement)\s*)?"
_CHOICE = re.compile(_LABEL + r"\(?\s*([A-J])\s*[).:]?")
_SMALL_CHOICE = re.compile(_LABEL + r"\(\s*([a-j])\s*\)")
_CHOICE_PREFIX = re.compile(rf"(?:{TEXT}\s*\{{\s*)?(?:\(\s*([A-J])\s*\)|([A-J])[.):])\s*\}}?\s*(?=\S)")
_SUPERLATIVE = re.compile(r"[a-z]+est|first|last|winner|answer|one|most|least|best|only")
_SET_LIKE = re.compile(r"[<>]|\\(?:le|ge|ne|in|cup|cap|setminus|mathbb|emptyset|mid)(?![A-Za-z])")
_PROSE = re.compile(TEXT + r"\s*\*?\s*\{\s*[^{}]*[A-Za-z]{2}")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_CLOCK = re.compile(r"[0-9]{1,2}(?::[0-9]{2}){1,2}")  # a time of day, no ratio
_MERIDIEM = re.compile(r"\s*(?:" + TEXT + r"\s*\{\s*)?(?<![A-Za-z\\])[ap]\.?\s?m\.?\s*\}?$", re.I)
_MIXED_IN_WORDS = re.compile(r"(-?[0-9]+)\s*\\land\s*(\\frac\{[0-9]+\}\{[0-9]+\}|[0-9]+/[0-9]+)")
_HALF_OF_DAY = re.compile(r"\b([ap])\.\s?m\.?(?![a-z])", re.I)  # "p.m."
_REALS = re.compile(r"\\text\s*\{\s*(?:all )?real numbers?\s*\}|\\text\s*\{\s*all reals\s*\}")
_CONSTANT = re.compile(r"(?:\\(?:frac|sqrt|pi|cdot|times|pm|binom|left|right)(?![A-Za-z])|\\[%$]|[^A-Za-z\\])*")


def compare(gold: str, answer: str) -> Equivalence:
    """Whether two answers are the same: "equal", "different", or "timeout" where sympy did not come to an end."""
    if max(len(gold), len(answer)) > MAX_ANSWER_CHARS:
        return "equal" if gold == answer else "different"
    if _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(answer):  # nearly every answer of AIME
        return "equal" if int(gold) == int(answer) else "different"
    gold_text, text = outer(gold), outer(answer)
    if not text:
        return "different"
    return _first_equal(_same(gold_text, reading) for reading in _readings(gold_text, text))


def outer(answer: str) -> str:
    """The answer in plain LaTeX without math mode, and without what stands around it for typography only."""
    text = _HALF_OF_DAY.sub(r"\1m", _REALS.sub(lambda _: r"\mathbb{R}", with_connectives(notation(answer))))
    before = None
    if len(text) > 1 and text.startswith("$") and text.endswith("$") and not text.endswith(r"\$"):
        text = text.strip("$")
    while text != before:
        before = text
        text = _START.sub("", _END.sub("", _MATH_MODE.sub("", text).strip()))
        if text.startswith("{") and matching_brace(text, 0) == len(text) - 1 and not _INFIX.search(text):
            text = text[1:-1].strip()
    return re.sub(r"^([+-])(?:\s|~|\\[,;:! ])+(?=[0-9.])", r"\1", text)


def _first_equal(verdicts: Iterable[Equivalence]) -> Equivalence:
    worst: Equivalence = "different"
    for verdict in verdicts:
        if verdict == "equal":
            return verdict
        worst = "timeout" if verdict == "timeout" else worst
    return worst


def _all_equal(verdicts: Iterable[Equivalence]) -> Equivalence:
    return next((verdict for verdict in verdicts if verdict != "equal"), "equal")


def _readings(gold: str, text: str) -> Iterator[str]:
    """What an answer may mean: `(C) 25` is 25 or the option C, and `1/3 \\approx 0.33` says both."""
    yield text
    if match := _CHOICE_PREFIX.match(text):
        yield (match[1] or match[2]) if choice_letter(gold) else text[match.end() :].rstrip("}")
    if _MERIDIEM.search(text) and not _MERIDIEM.search(gold):
        yield _MERIDIEM.sub("", text).strip()
    if mixed := _MIXED_IN_WORDS.fullmatch(text):
        yield f"{mixed[1]} {mixed[2]}"
    approximations = [part.strip() for part in split_top(text, (r"\approx",))]
    if len(approximations) == 2 and all(approximations) and _is_rounding(*approximations):
        yield from approximations


def _is_rounding(left: str, right: str) -> bool:
    exact = [value_of(bare_value(members(side)[-1]) or side) for side in (left, right)]
    known = [value.number for value in exact if value is not None]
    return len(known) < 2 or 20 * abs(known[0] - known[1]) <= max(map(abs, known))


def _same(gold: str, text: str) -> Equivalence:
    if squeezed(gold) == squeezed(text):
        return "equal"
    letters = choice_letter(gold), choice_letter(text)
    if all(letters):
        return "equal" if letters[0] == letters[1] else "different"
    gold_words = words_of(gold)
    if gold_words is not None:
        return "equal" if _same_words(gold_words, words_of(members(text)[-1], of_any_length=True)) else "different"
    gold_members = members(gold)
    if len(gold_members) == 1:
        return _same_as_value(gold, text)
    gold_name, gold_value = gold_members[0], gold_members[-1]
    if not is_variable(gold_name):
        return equivalence(_for_sympy(gold), _for_sympy(text))
    name, value = _named(text)
    if name is None or squeezed(name) == squeezed(gold_name):
        return _same_as_value(gold_value, value)
    return equivalence(_for_sympy(gold), _for_sympy(text))


def _named(text: str) -> tuple[str | None, str]:
    """Name and value of `x = 5` and `5 = x`; (None, text) where nothing is named."""
    parts = members(text)
    if len(parts) == 1:
        return None, text
    if not is_variable(parts[0]) and is_variable(parts[-1]):
        return parts[-1], parts[-2]
    return parts[0], parts[-1]


def _same_as_value(gold: str, text: str) -> Equivalence:
    """Compares with a gold that is no equality. An equality is judged by its last member, unless it is false."""
    parts = members(text)
    if len(parts) > 1 and len(split_top(text, (",", ";", r"\land", r"\lor"))) == 1:
        values = [part for part in parts if not is_name(part)]
        if not values:
            values = parts[-1:]
        text = parts[-2] if is_variable(parts[-1]) and not is_name(parts[-2]) else values[-1]
        others = [part for part in values if part != text and _is_constant(part) and _is_constant(text)]
        if any(_same_value(text, other) == "different" for other in others):
            return "different"
    return _same_value(gold, text)


def _is_constant(text: str) -> bool:
    """Whether the text is a number by itself; with a unit it is none: "1 km = 1000 m" is true."""
    return bool(text) and _CONSTANT.fullmatch(text) is not None


def _same_value(gold: str, text: str) -> Equivalence:
    """Compares two answers that are not equalities."""
    gold_value, value = bare_value(gold), bare_value(text)
    if gold_value is not None and value is not None:
        if squeezed(gold_value) == squeezed(value):
            return "equal"
        times = _CLOCK.fullmatch(gold_value), _CLOCK.fullmatch(value)
        if times[0] and times[1]:
            return "equal" if list(map(int, gold_value.split(":"))) == list(map(int, value.split(":"))) else "different"
        exact = value_of(gold_value), value_of(value)
        if exact[0] is not None and exact[1] is not None:
            return "equal" if same_number(exact[0], exact[1]) else "different"
        if numeral_parts(gold_value) or numeral_parts(value):
            return "different"
    elif exact_numeral := _numerals(gold, text):
        return exact_numeral
    gold, text = without_thousands(gold_value or gold), without_thousands(value or text)
    if (verdict := _same_collection(gold, text)) is not None:
        return verdict
    if _PROSE.search(gold) or _PROSE.search(text):
        return "equal" if _flat_equal(gold, text) else "different"
    return equivalence(_for_sympy(gold), _for_sympy(text))


def _numerals(gold: str, text: str) -> Equivalence | None:
    """Numerals of a base whose base is written in words, which are not neighbours of a value."""
    exact = value_of(bare_value(gold) or gold), value_of(bare_value(text) or text)
    if exact[0] is None or exact[1] is None:
        return None
    return "equal" if same_number(exact[0], exact[1]) else "different"


def _for_sympy(text: str) -> str:
    """Without TeX's spaces; a number as its parser reads it, which knows neither `1e6` nor mixed
    numbers with a slash.
    """
    if (exact := value_of(text)) is not None:
        top, bottom = exact.exact.as_integer_ratio()
        return str(top) if bottom == 1 else rf"\frac{{{top}}}{{{bottom}}}"
    return re.sub(r"\\[,;:!]|~", " ", text)


def _flat_equal(gold: str, text: str) -> bool:
    return squeezed(flat(gold)).casefold() == squeezed(flat(text)).casefold()


def _same_collection(gold: str, text: str) -> Equivalence | None:
    """Compares element by element; None where neither is a collection, or sympy has to be asked of the whole."""
    (gold_name, gold), (name, text) = _membership(gold), _membership(text)
    if gold_name and name and gold_name != name:
        return "different"
    left, right = collection(gold), collection(text)
    if left is None and right is None:
        return None
    sides = [(gold, left), (text, right)]
    if any(
        set_condition(side) or (_SET_LIKE.search(side) and (found is None or found.kind == "list"))
        for side, found in sides
    ):
        return None
    if left is None or right is None:
        return _restated(gold, text, left or right)
    if max(len(left.items), len(right.items)) > _MAX_ITEMS:
        return "different"
    if {left.kind, right.kind} <= {"list", "set"}:
        return _matched(left.items, right.items)
    if len(left.items) != len(right.items) or not _same_shape(left, right):
        return "different"
    return _all_equal(_same_as_value(_unnamed(a), b) for a, b in zip(left.items, right.items, strict=True))


def _same_shape(left: Collection, right: Collection) -> bool:
    """Whether ordered elements of the two may be compared: matrices of one shape, tuples of one kind, a vector and a
    tuple.
    """
    kinds = {left.kind, right.kind}
    if kinds == {"matrix"}:
        return left.columns == right.columns
    if kinds == {"tuple"}:  # two elements in brackets may be an interval
        return len(left.items) > 2 or left.brackets == right.brackets
    if kinds == {"matrix", "tuple"}:
        matrix = left if left.kind == "matrix" else right
        return matrix.columns in (1, len(matrix.items))
    return kinds == {"tuple", "list"}


def _membership(text: str) -> tuple[str, str]:
    r"""`x` and `[-2,7]` of `x \in [-2,7]`; no name where there is none."""
    parts = [part.strip() for part in split_top(text, (r"\in",))]
    return (parts[0], parts[1]) if len(parts) == 2 and is_variable(parts[0]) else ("", text)


def _restated(gold: str, text: str, found: Collection | None) -> Equivalence:
    """Compares one value with a collection, which says the same only if all its elements do: `1/2, or 0.5`."""
    if found is None or found.kind in ("tuple", "matrix") or len(found.items) > _MAX_ITEMS:
        return "different"
    if found == collection(gold):
        return _all_equal(_same_as_value(_unnamed(item), text) for item in found.items)
    return _all_equal(_same_as_value(gold, item) for item in found.items)


def _unnamed(text: str) -> str:
    name, value = _named(text)
    return value if name is not None and is_name(name) else text


def _matched(gold: Sequence[str], answer: Sequence[str]) -> Equivalence:
    """Whether every element of one has its equal in the other; the order does not matter, nor does repetition."""
    for left, right, swapped in ((gold, answer, False), (answer, gold, True)):
        for element in left:
            pairs = ((other, element) if swapped else (element, other) for other in right)
            verdict = _first_equal_until_timeout(_same_as_value(_unnamed(a), b) for a, b in pairs)
            if verdict != "equal":
                return verdict
    return "equal"


def _first_equal_until_timeout(verdicts: Iterable[Equivalence]) -> Equivalence:
    return next((verdict for verdict in verdicts if verdict != "different"), "different")


def choice_letter(text: str) -> str | None:
    """The letter of an answer that is nothing but an option, `C`, `(C)` or `Option C`; capital."""
    plain = flat(text).rstrip(".")
    match = _CHOICE.fullmatch(plain) or _SMALL_CHOICE.fullmatch(plain)
    return match[1].upper() if match else None


def words_of(text: str, of_any_length: bool = False) -> list[str] | None:
    """The words of an answer in words; None for symbols: then letters are variables, whose order does not matter."""
    plain = flat(text).replace(r"\land", "and").replace(r"\lor", "or").strip(" .\"'()")
    if re.fullmatch(r"[A-Za-z]+(?:[\s'-]+[A-Za-z]+)*", plain) is None:
        return None
    wrapped = re.fullmatch(TEXT + r"\s*\{[^{}]*\}[.\s]*", text.strip()) is not None and len(plain) > 1
    found = re.findall(r"[a-z]+", plain.casefold())
    return found if wrapped or of_any_length or any(len(word) >= 4 for word in found) else None


def _same_words(gold: Sequence[str], answer: Sequence[str] | None) -> bool:
    """Whether both name the same, whatever article or label stands beside it."""
    return answer is not None and ("".join(gold) == "".join(answer) or "".join(_core(gold)) == "".join(_core(answer)))


def _core(words: Sequence[str]) -> Sequence[str]:
    """The words that matter: without articles and labels, and without "is the fastest" behind a name."""
    for verb in ("is", "was", "wins", "won", "has", "ran", "runs"):
        if verb in words and (at := list(words).index(verb)) > 0:
            rest = [word for word in words[at + 1 :] if word not in WORD_LEADS and word not in WORD_TRAILS]
            if all(word in LEADING_LABELS or _SUPERLATIVE.fullmatch(word) for word in rest):
                words = words[:at]
            break
    while len(words) > 1 and words[0] in WORD_LEADS | WORD_TRAILS:
        words = words[1:]
    while len(words) > 1 and words[-1] in WORD_TRAILS:
        words = words[:-1]
    return words
