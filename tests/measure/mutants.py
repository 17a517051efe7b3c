"""Mutants of a module's source: each changes one expression or statement, as a small mistake would.

    comparison      < becomes <= and >=, == becomes !=, `in` becomes `not in`, ...
    arithmetic      + and -, * and /, // and %, ** becomes *, & and | exchange
    logic           `and` and `or` exchange; `not x` and `-x` become x; a condition is negated
    constant        a number becomes one more and one less, a truth value the other, a string another one
    return          the value becomes None
    statement       a call, an update, a deletion, a check that raises or a reassignment is left out; `break` is `pass`
    arguments       two neighbouring arguments exchange
    method          x.f(...) becomes x
    decorator       a decorator is left out

Left alone: docstrings, annotations, the texts of messages, decorators that make a class or a property what it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mod,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
KEPT_DECORATORS = ("dataclass", "property", "staticmethod", "classmethod")
CONTEXT = 32  # characters shown before and behind what a mutant changes


@dataclass(frozen=True)
class Mutant:
    """One change of a module; `name` says where and what, and is the same after an edit elsewhere in the file."""

    name: str
    line: int
    source: str  # of the whole mutated module


@dataclass(frozen=True)
class _Site:
    """A place that can hold another node."""

    parent: ast.AST
    field: str
    index: int | None  # in a list
    statement: ast.stmt  # the innermost around it, which is shown
    scope: str

    def get(self) -> ast.AST:
        value = getattr(self.parent, self.field)
        return value if self.index is None else value[self.index]  # type: ignore[no-any-return]

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def mutants_of(source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    tree = ast.parse(source)
    modules = {alias.asname or alias.name.partition(".")[0] for node in ast.walk(tree) for alias in _imported(node)}
    whole, seen, made = ast.unparse(tree), {}, []
    for site in list(_sites(tree, tree, "")):
        original, before = site.get(), _head(site.statement)
        for kind, replacement in _replacements(original, modules):
            site.put(ast.copy_location(replacement, original))
            text = ast.unparse(ast.fix_missing_locations(tree))
            shown = replacement if original is site.statement else site.statement
            after = "removed" if isinstance(shown, ast.Pass) else _head(shown)
            site.put(original)
            if text == whole:
                continue
            name = f"{site.scope or 'module'}, {kind}: {_difference(before, after)}"
            seen[name] = seen.get(name, 0) + 1
            name += f" (number {seen[name]})" if seen[name] > 1 else ""
            made.append(Mutant(name, getattr(original, "lineno", site.statement.lineno), text))
    return made


def _imported(node: ast.AST) -> list[ast.alias]:
    return node.names if isinstance(node, ast.Import | ast.ImportFrom) else []


def _sites(node: ast.AST, statement: ast.AST, scope: str) -> Iterator[_Site]:
    """Every place below a node, without docstrings, annotations and the texts of messages."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        scope = f"{scope}.{node.name}".lstrip(".")
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "type_comment") or isinstance(node, ast.JoinedStr | ast.Import):
            continue
        children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, child in children:
            if (
                not isinstance(child, ast.AST)
                or _is_text(child, node)
                or (field == "decorator_list" and _is_kept(child))
            ):
                continue
            inner = child if isinstance(child, ast.stmt) else statement
            if isinstance(inner, ast.stmt):
                yield _Site(node, field, index, inner, scope)
            yield from _sites(child, inner, scope)


def _is_text(node: ast.AST, parent: ast.AST) -> bool:
    """A docstring, or what an error says."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return isinstance(parent, ast.Call) and ast.unparse(parent.func).endswith("Error")
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_kept(decorator: ast.AST) -> bool:
    return ast.unparse(decorator).startswith(KEPT_DECORATORS)


def _replacements(node: ast.AST, modules: set[str]) -> Iterator[tuple[str, ast.AST]]:
    """What may stand in a node's place, and of which kind the change is."""
    yield from _of_operators(node)
    yield from _of_values(node, modules)
    yield from _of_statements(node)


def _of_operators(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Compare(left, operators, right):
            for i, operator in enumerate(operators):
                for other in COMPARISONS[type(operator)]:
                    yield "comparison", ast.Compare(left, [*operators[:i], other(), *operators[i + 1 :]], right)
        case ast.BinOp(left, operator, right) if type(operator) in ARITHMETIC:
            yield "arithmetic", ast.BinOp(left, ARITHMETIC[type(operator)](), right)
        case ast.AugAssign(target, operator, value) if type(operator) in ARITHMETIC:
            yield "arithmetic", ast.AugAssign(target, ARITHMETIC[type(operator)](), value)
        case ast.BoolOp(operator, values):
            yield "logic", ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
        case ast.UnaryOp(_, operand):
            yield "logic", operand
        case ast.If(test, body, rest) | ast.While(test, body, rest) if not isinstance(test, ast.Compare):
            yield "logic", type(node)(ast.UnaryOp(ast.Not(), test), body, rest)
        case ast.IfExp(test, body, rest) if not isinstance(test, ast.Compare):
            yield "logic", ast.IfExp(ast.UnaryOp(ast.Not(), test), body, rest)
        case ast.comprehension(target, iterable, conditions, is_async) if conditions:
            yield "logic", ast.comprehension(target, iterable, [ast.UnaryOp(ast.Not(), conditions[0])], is_async)


def _of_values(node: ast.AST, modules: set[str]) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Constant(bool(value)):
            yield "constant", ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield "constant", ast.Constant(value + 1)
            yield "constant", ast.Constant(value - 1)
        case ast.Constant(str(value)):
            yield "constant", ast.Constant(f"{value}?")
        case ast.Call(function, arguments, keywords):
            for i in range(len(arguments) - 1):
                exchanged = [*arguments[:i], arguments[i + 1], arguments[i], *arguments[i + 2 :]]
                yield "arguments", ast.Call(function, exchanged, keywords)
            if isinstance(function, ast.Attribute) and not _is_module(function.value, modules):
                yield "method", function.value


def _is_module(node: ast.expr, modules: set[str]) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and node.id in modules


def _of_statements(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Return(value) if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
            yield "return", ast.Return(ast.Constant(None))
        case ast.Expr(ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Delete() | ast.Break():
            yield "statement", ast.Pass()
        case ast.Assign([ast.Attribute() | ast.Subscript()]):
            yield "statement", ast.Pass()
        case ast.Assign([ast.Name(name)], value) if name in {n.id for n in ast.walk(value) if isinstance(n, ast.Name)}:
            yield "statement", ast.Pass()
        case ast.FunctionDef(decorator_list=decorators):
            for i, decorator in enumerate(decorators):
                if not _is_kept(decorator):
                    fields = {**dict(ast.iter_fields(node)), "decorator_list": decorators[:i] + decorators[i + 1 :]}
                    yield "decorator", ast.FunctionDef(**fields)


def _head(statement: ast.stmt) -> str:
    """The statement in one line; of a compound one what stands before its body."""
    lines = ast.unparse(statement).splitlines()
    depth = 1 + len(getattr(statement, "decorator_list", []))
    return " ".join(lines[:depth])


def _difference(before: str, after: str) -> str:
    """What changes, with a little of what stands around it."""
    if after == "removed":
        return f"`{before[: 4 * CONTEXT]}` removed"
    start = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
    end = 0
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        end += 1
    left = max(0, start - CONTEXT)

    def shown(text: str) -> str:
        cut = text[left : len(text) - end + CONTEXT if end > CONTEXT else None]
        return f"`{'…' if left else ''}{cut}{'…' if end > CONTEXT else ''}`"

    return f"{shown(before)} → {shown(after)}"
