r"""Whether two answers in plain LaTeX are equal, by sympy. Slow and possibly endless: only tasks.math_worker calls it.

LaTeX is read by math-verify's parser, with small and capital letters told apart. What is compared, by kind:

    numbers                exactly where they are rational, otherwise to 50 digits of the greater one
    expressions            at random points of both signs, to 30 digits
    sets and inequalities  as sets of real numbers: `x < 2 \lor x > 3` is `(-\infty, 2) \cup (3, \infty)`
    equations              as multiples of each other, and otherwise as math-verify compares them
"""

import functools
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy, normalize_latex
from math_verify import verify
from math_verify.grader import should_treat_as_complex
from sympy.core.relational import Relational

from tasks.math_structure import set_condition, split_top, tuple_parts

_NUMBER_DIGITS = 50
_POINT_DIGITS = 30
_FEW_OPERATIONS = 20  # of expressions that are first evaluated as they stand
_POINTS = 8
_MIN_POINTS = 3  # at which both expressions must have a value
_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)\\(?:overline|bar|dot)\s*\{\s*([0-9]+)\s*\}")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*\\?%")
_NORMALIZATION = NormalizationConfig(units=False, malformed_operators=True, nits=True, boxed="none")
_CONVERSION = ConversionConfig(lowercase_symbols=False)
_RELATIONS = ("<", ">", r"\le", r"\ge", r"\ne")
_VARIABLE = re.compile(r"(?:[A-Za-z]|\\[a-z]+)(?:_(?:\{\w+\}|\w))?")
_NAMED_SETS = {
    r"\mathbb{R}": sympy.S.Reals,
    r"\mathbb{Z}": sympy.S.Integers,
    r"\mathbb{N}": sympy.S.Naturals,
    r"\mathbb{Q}": sympy.S.Rationals,
    r"\emptyset": sympy.S.EmptySet,
    r"\{\}": sympy.S.EmptySet,
}

Located = tuple[Any, str | None]  # a set of real numbers, and the name of the variable that is in it


def equivalent(gold: str, answer: str) -> bool:
    """Whether the two are the same; anything that cannot be read is not."""
    if _is_set_like(gold) or _is_set_like(answer):
        gold_set, answer_set = to_set(gold), to_set(answer)
        if gold_set is not None and answer_set is not None:
            return _same_set(gold_set, answer_set)
    left, right = _parse(gold), _parse(answer)
    return left is not None and right is not None and _same(left, right)


def to_set(text: str) -> Located | None:
    """The real numbers that an interval, a union, an inequality or a set stands for; None where it stands for none."""
    text = text.strip().rstrip(".;").strip()
    if text.replace(" ", "") in _NAMED_SETS:
        return _NAMED_SETS[text.replace(" ", "")], None
    if condition := set_condition(text):
        return to_set(condition)
    for separators, combine in (
        ((r"\cup", r"\lor"), sympy.Union),
        ((r"\cap", r"\land"), sympy.Intersection),
        ((r"\setminus",), sympy.Complement),
    ):
        parts = split_top(text, separators)
        if len(parts) > 1:
            return _combined([to_set(part) for part in parts], combine)
    if len(parts := split_top(text, (",",))) > 1 and all(
        re.search(r"[<>]|\\[lg]e(?![A-Za-z])", part) for part in parts
    ):
        located = [to_set(part) for part in parts]  # "x > 2, x < 5" are both, "x < 2, x > 5" can only be either
        both = _combined(located, sympy.Intersection)
        return both if both is None or both[0] != sympy.S.EmptySet else _combined(located, sympy.Union)
    membership = split_top(text, (r"\in",))
    if len(membership) == 2 and _VARIABLE.fullmatch(membership[0].strip()):
        inner = to_set(membership[1])
        return inner and (inner[0], membership[0].strip())
    return _inequality(text) or _written_set(text) or _solved(text)


def _combined(parts: Sequence[Located | None], combine: Any) -> Located | None:
    names = {part[1] for part in parts if part is not None and part[1]}
    if None in parts or len(names) > 1:
        return None
    return combine(*[part[0] for part in parts if part is not None]), next(iter(names), None)


def _inequality(text: str) -> Located | None:
    """`2 < x \\le 5` and the like, in one variable."""
    pieces = split_top(text, _RELATIONS, keep=True)
    if len(pieces) < 3:
        return None
    result: Any = sympy.S.Reals
    name = None
    for left, relation, right in zip(pieces[:-2:2], pieces[1::2], pieces[2::2], strict=True):
        sides = [side.strip() for side in (left, right)]
        variable = [bool(_VARIABLE.fullmatch(side)) and side not in (r"\pi", "e", "i") for side in sides]
        if sum(variable) != 1:
            return None
        found = sides[variable.index(True)]
        bound = _real(sides[variable.index(False)])
        if bound is None or name not in (None, found):
            return None
        name = found
        result = result.intersect(_half_line(relation, bound, variable_first=variable[0]))
    return result, name


def _solved(text: str) -> Located | None:
    """Any other inequality in one variable, such as `|x| \\le 3`."""
    if len(split_top(text, _RELATIONS, keep=True)) != 3:
        return None
    value = _parse(text)
    if not isinstance(value, Relational) or isinstance(value, sympy.Eq) or len(value.free_symbols) != 1:
        return None
    return value.as_set(), next(iter(value.free_symbols)).name


def _half_line(relation: str, bound: Any, variable_first: bool) -> Any:
    if relation == r"\ne":
        return sympy.Complement(sympy.S.Reals, sympy.FiniteSet(bound))
    below = (relation in ("<", r"\le")) == variable_first
    is_open = relation in ("<", ">")
    infinity = sympy.oo
    return sympy.Interval(-infinity, bound, True, is_open) if below else sympy.Interval(bound, infinity, is_open, True)


def _written_set(text: str) -> Located | None:
    if len(text) > 4 and text.startswith(r"\{") and text.endswith(r"\}"):
        values = [_real(part) for part in split_top(text[2:-2], (",",))]
        return None if None in values else (sympy.FiniteSet(*values), None)
    bounds = tuple_parts(text)
    if bounds is None or len(bounds[1]) != 2:
        return None
    (opening, closing), ends = bounds[0], [_real(part) for part in bounds[1]]
    if None in ends:
        return None
    return sympy.Interval(*ends, opening == "(", closing == ")"), None


def _real(text: str) -> Any:
    """A real constant or an infinity; None for anything else."""
    text = text.strip()
    if text.replace(" ", "") in (r"\infty", r"+\infty", r"-\infty"):
        return -sympy.oo if text.startswith("-") else sympy.oo
    value = _parse(text)
    if not isinstance(value, sympy.Expr) or value.free_symbols:
        return None
    value = value.doit()
    return value if value.is_real else None


def _is_set_like(text: str) -> bool:
    return bool(
        re.search(
            r"[<>]|\\(?:le|ge|ne|in|cup|cap|setminus|mathbb|emptyset|lor|land|mid)(?![A-Za-z])|^[\[(].*,.*[\])]$", text
        )
    )


def _same_set(gold: Located, answer: Located) -> bool:
    (left, name), (right, other) = gold, answer
    if name and other and name != other:
        return False
    if left == right:
        return True
    if isinstance(left, sympy.Interval) and isinstance(right, sympy.Interval):
        ends = ((left.start, right.start), (left.end, right.end))
        openness = (left.left_open, left.right_open) == (right.left_open, right.right_open)
        return bool(openness) and all(a == b or _same_constant(a, b) for a, b in ends)
    return bool(sympy.SymmetricDifference(left, right).simplify() == sympy.S.EmptySet)


@functools.lru_cache(maxsize=256)  # the gold of a problem comes with each of its samples
def _parse(latex: str) -> Any:
    """The sympy object that LaTeX stands for, decimals at their exact value; None where it cannot be read."""
    if r"\ldots" in latex:  # what is left out is not known
        return None
    text = _REPEATING.sub(_as_fraction, latex.replace("\n", " ").replace("\r", " "))
    text = _PERCENT.sub(r"\\frac{\1}{100}", text).replace(r"\lor", ",").replace(r"\land", ",")
    normalized = normalize_latex(text, _NORMALIZATION)
    try:
        value = latex2sympy(
            normalized,
            is_real=not should_treat_as_complex(normalized),
            normalization_config=None,
            conversion_config=_CONVERSION,
        )
    except Exception:  # a parser's own errors are of every kind
        return None
    return _exact(value)


def _as_fraction(match: re.Match[str]) -> str:
    """0.1\\overline{6} as (16 - 1) / 90."""
    whole, start, period = match[1] or "0", match[2], match[3]
    top = int(whole + start + period) - int(whole + start)
    return rf"\frac{{{top}}}{{{10 ** len(start) * (10 ** len(period) - 1)}}}"


def _exact(value: Any) -> Any:
    """Decimals as fractions, i as the imaginary unit."""
    if isinstance(value, sympy.MatrixBase):
        return value.applyfunc(_exact)
    replaced = {number: sympy.Rational(str(number)) for number in value.atoms(sympy.Float)}
    units = {symbol: sympy.I for symbol in value.free_symbols if symbol.name == "i"}
    changed = value.xreplace({**replaced, **units}) if replaced or units else value
    return changed.doit() if units and isinstance(changed, sympy.Expr) else changed


def _same(gold: Any, answer: Any) -> bool:
    if isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr):
        return _same_expression(gold, answer)
    if isinstance(gold, sympy.Eq) and isinstance(answer, sympy.Eq):
        sides = [sympy.sympify(equation.lhs - equation.rhs) for equation in (gold, answer)]
        if all(isinstance(side, sympy.Expr) for side in sides) and _proportional(*sides):
            return True
    if isinstance(gold, Relational) != isinstance(answer, Relational) and not _is_set(gold) and not _is_set(answer):
        return False  # an equation is not one of its sides
    return bool(
        verify([gold], [answer], allow_set_relation_comp=True, numeric_precision=_NUMBER_DIGITS, timeout_seconds=None)
    )


def _is_set(value: Any) -> bool:
    return isinstance(value, sympy.Set | sympy.Tuple)


def _same_expression(gold: Any, answer: Any) -> bool:
    if gold == answer:
        return not gold.has(sympy.zoo, sympy.nan)  # 5/0 is no answer
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=lambda symbol: symbol.name)
    if not symbols:
        return _same_constant(gold.doit(), answer.doit())
    if sympy.count_ops(gold) + sympy.count_ops(answer) <= _FEW_OPERATIONS and gold.doit() == answer.doit():
        return True  # faster than the points, where it is enough
    return _agree_at_points(gold, answer, symbols)


def _same_constant(gold: Any, answer: Any) -> bool:
    """Rational numbers exactly; others to so many digits that no two answers of people agree by chance."""
    if any(value.has(sympy.oo, sympy.zoo, sympy.nan) for value in (gold, answer)):
        return bool(gold == answer and not gold.has(sympy.zoo, sympy.nan))
    if gold == answer:
        return True
    if gold.is_Rational and answer.is_Rational:
        return False
    if gold.is_zero or answer.is_zero:
        return bool(sympy.simplify(gold - answer) == 0)
    return _close(gold.evalf(_NUMBER_DIGITS + 10), answer.evalf(_NUMBER_DIGITS + 10), _NUMBER_DIGITS)


def _close(left: Any, right: Any, digits: int) -> bool:
    return bool(abs(left - right) <= max(abs(left), abs(right)) * sympy.Float(10) ** -digits)


def _float(value: Any) -> Any:
    """Not exact: `(x+1)^{99}^{99}` has no end as a fraction. Twice the digits that are compared, since some cancel."""
    return value.evalf(2 * _POINT_DIGITS)


def _values(expressions: Sequence[Any], symbols: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """The expressions at points that are drawn alike for every question; points where one has no value are left out."""
    draw = random.Random(0)
    for _ in range(_POINTS):
        point = {symbol: _float(sympy.Rational(draw.randint(-4_000, 4_000) * 2 + 1, 1_009)) for symbol in symbols}
        at = tuple(_float(expression.xreplace(point)) for expression in expressions)
        if all(value.is_number and not value.has(sympy.nan, sympy.zoo, sympy.oo) for value in at):
            yield at


def _agree_at_points(gold: Any, answer: Any, symbols: Sequence[Any]) -> bool:
    count = 0
    for count, (left, right) in enumerate(_values((gold, answer), symbols), start=1):  # noqa: B007
        if not _close(left, right, _POINT_DIGITS):
            return False
    return count >= _MIN_POINTS


def _proportional(gold: Any, answer: Any) -> bool:
    """Whether one is a constant multiple of the other: then both are zero at the same places."""
    if gold.free_symbols != answer.free_symbols or not gold.free_symbols:
        return False
    values = _values((gold, answer), sorted(gold.free_symbols, key=lambda symbol: symbol.name))
    ratios = [left / right for left, right in values if right != 0]
    return len(ratios) >= _MIN_POINTS and all(_close(ratio, ratios[0], _POINT_DIGITS) for ratio in ratios)
