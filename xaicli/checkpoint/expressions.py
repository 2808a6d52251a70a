"""Shape expressions and guards of an exported graph, admitted only as integer arithmetic over known symbols.

torch gives the text of a shape expression to sympy's parser and the text of a guard to `exec`; both run any Python in
it. Here the text is parsed, never run, and everything but arithmetic is refused.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection

_LONGEST = 2_000
_LARGEST_INTEGER = 2**63
_LARGEST_EXPONENT = 8
_SYMBOL = re.compile(r"[a-z]{1,8}\d{1,6}")

_FUNCTIONS = frozenset(
    {"Add", "Mul", "Pow", "Integer", "Max", "Min", "Mod", "FloorDiv", "ModularIndexing", "PythonMod", "CleanDiv"}
    | {"CeilDiv", "PowByNatural", "IntTrueDiv", "LShift", "RShift", "Where", "Identity", "And", "Or", "Not"}
    | {"Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality"}
    | {"StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan"}
)
_POWERS = frozenset({"Pow", "PowByNatural", "LShift", "RShift"})
_ASSUMPTIONS = frozenset({"positive", "integer", "nonnegative", "negative", "real", "zero", "nonzero", "finite"})
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod, ast.Pow)
_GUARD_NODES = (
    ast.Expression,
    ast.BoolOp,
    ast.And,
    ast.Or,
    ast.UnaryOp,
    ast.Not,
    ast.USub,
    ast.BinOp,
    *_OPERATORS,
    ast.Compare,
    ast.Eq,
    ast.NotEq,
    ast.Lt,
    ast.LtE,
    ast.Gt,
    ast.GtE,
    ast.Subscript,
    ast.Load,
    ast.Constant,
)


def is_symbol(text: object) -> bool:
    """Whether a text is the name of a shape symbol as torch makes them ("s0", "u3")."""
    return isinstance(text, str) and _SYMBOL.fullmatch(text) is not None


def is_arithmetic(text: object, symbols: Collection[str]) -> bool:
    """Whether an expression is nothing but integer arithmetic over the given symbols.

    Args:
        text: The expression as torch stores it, `Mul(Integer(2), Symbol('s0', positive=True))` or `2*s0`.
        symbols: The names of the graph's own symbols.
    """
    tree = _parse(text)
    return tree is not None and _is_number(tree.body, symbols)


def is_guard(text: object) -> bool:
    """Whether a guard only compares sizes of inputs with arithmetic."""
    tree = _parse(text)
    return tree is not None and all(_is_guard_node(node) for node in ast.walk(tree))


def _parse(text: object) -> ast.Expression | None:
    if not isinstance(text, str) or len(text) > _LONGEST or not text.isascii():
        return None
    try:
        return ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_number(node: ast.expr, symbols: Collection[str]) -> bool:
    match node:
        case ast.Constant(value=value):
            return isinstance(value, int) and abs(value) < _LARGEST_INTEGER
        case ast.Name(id=name):
            return name in symbols and is_symbol(name)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _is_number(operand, symbols)
        case ast.BinOp(left=left, op=operator, right=right):
            small = not isinstance(operator, ast.Pow) or _is_small(right)
            return isinstance(operator, _OPERATORS) and small and all(_is_number(x, symbols) for x in (left, right))
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=name)], keywords=keywords):
            return name in symbols and is_symbol(name) and all(_is_assumption(keyword) for keyword in keywords)
        case ast.Call(func=ast.Name(id=function), args=arguments, keywords=[]):
            small = function not in _POWERS or (len(arguments) == 2 and _is_small(arguments[1]))
            return function in _FUNCTIONS and small and all(_is_number(x, symbols) for x in arguments)
    return False


def _is_small(node: ast.expr) -> bool:
    """An exponent that cannot blow a number up: a literal, and a small one (-1 is how sympy divides)."""
    match node:
        case ast.Call(func=ast.Name(id="Integer"), args=[inner]):
            return _is_small(inner)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_small(operand)
        case ast.Constant(value=int(value)):
            return abs(value) <= _LARGEST_EXPONENT
    return False


def _is_assumption(keyword: ast.keyword) -> bool:
    return keyword.arg in _ASSUMPTIONS and isinstance(keyword.value, ast.Constant) and type(keyword.value.value) is bool


def _is_guard_node(node: ast.AST) -> bool:
    match node:
        case ast.Name(id=name):
            return name == "L" or is_symbol(name)
        case ast.Call(func=ast.Attribute(attr=method), args=[], keywords=[]):
            return method in ("size", "dim")
        case ast.Attribute(attr=method):
            return method in ("size", "dim")
        case ast.Constant(value=value):
            return isinstance(value, int) or (isinstance(value, str) and value.isidentifier())
    return isinstance(node, _GUARD_NODES)
