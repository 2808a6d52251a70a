"""What an exported graph may say: torch's own operators on its own tensors, and integer arithmetic over known symbols.

torch gives the text of a shape expression to sympy's parser and the text of a guard to `exec`; both run any Python in
it. Here the text is parsed, never run, and everything but arithmetic is refused.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from typing import Any

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


_ATEN = re.compile(r"torch\.ops\.aten\.((?!__)\w+|__i?(?:and|or|xor|lshift|rshift)__)\.([A-Za-z]\w*)", re.ASCII)

_PYTHON_OPERATORS = frozenset(
    {f"_operator.{name}" for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pos", "pow")}
    | {f"_operator.{name}" for name in ("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "not_", "getitem")}
    | {f"math.{name}" for name in ("ceil", "floor", "trunc", "sqrt")}
    | {f"torch.sym_{name}" for name in ("int", "float", "max", "min", "not", "sum", "ite", "sqrt")}
)
_HIGHER_ORDER = frozenset(
    f"torch.ops.higher_order.{name}" for name in ["wrap_with_set_grad_enabled", "wrap_with_autocast", "cond"]
)
_REACHING_OUT = re.compile(
    "from_file|save|warn|_print|seed|manual_seed|set_grad_enabled|set_|set_data|resize.*|_resize.*|.*sparse.*"
    "|.*_tensor_unsafe|_unsafe_index_put|_unsafe_masked.*"
)
"""Operators on files, on the state of the process, and on memory without a check of its bounds."""

_TRAINING_FLAGS = {
    **dict.fromkeys(("batch_norm", "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"), "training"),
    **dict.fromkeys(("dropout", "native_dropout", "feature_dropout", "alpha_dropout"), "train"),
}


def objection(target: str) -> str:
    """Why an operator is not admitted, in words that name it; "" when it is."""
    if match := _ATEN.fullmatch(target):
        return "an operator that reaches outside its tensors" if _REACHING_OUT.fullmatch(match[1]) else ""
    known = target in _PYTHON_OPERATORS or target in _HIGHER_ORDER
    return "" if known else "an operator that is none of torch's own ATen operators"


def trains(node: Mapping[str, Any]) -> bool:
    """Whether a node of a graph computes as in training: batch statistics, dropout."""
    match = _ATEN.fullmatch(node["target"])
    flag = _TRAINING_FLAGS.get(match[1].rstrip("_")) if match else None
    return any(argument["name"] == flag and argument["arg"].get("as_bool") for argument in node["inputs"])
