"""The graph of an exported model, admitted by allow-list and rebuilt without what only debugging needs.

torch turns the graph's names into Python source, gives its shape expressions to sympy's parser and its guards to
`exec`, and its operator names become attributes of the `torch` module. So every text in it is parsed here, never run:
names are identifiers, operators are ATen's on their own tensors, expressions are integer arithmetic over known symbols.
What is not needed (stack traces, guards, module calls) is left out.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
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


_KEY = re.compile(r"[\w -]{1,200}(\.[\w -]{1,200})*", re.ASCII)
_TEXT = re.compile(r"[\w .,:+<>\-]{0,500}", re.ASCII)
_VALUE_NAME = re.compile(r"[A-Za-z_]\w{0,200}", re.ASCII)
_DEEPEST = 60

_TREE_TYPES = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})
_DROPPED_KEYS = frozenset({"metadata", "guards_code", "treespec_namedtuple_fields"})


class ProgramError(Exception):
    """What a graph holds that is not admitted, in words that follow "it holds"."""


@dataclass(frozen=True)
class GraphInput:
    """A tensor the graph is called with; an axis of None can have any length."""

    name: str
    shape: tuple[int | None, ...]
    dtype: int
    """The number torch's export schema has for it."""
    example: tuple[int, ...]
    """A shape the graph accepts: where an axis can have any length, the one it was exported with."""


@dataclass(frozen=True)
class Program:
    """An admitted graph.

    Attributes:
        text: Its JSON as torch reads it, rebuilt.
        inputs: The tensors it is called with, in order.
        operators: How often each operator is used.
    """

    text: bytes
    inputs: tuple[GraphInput, ...]
    operators: Mapping[str, int]


def admit(text: bytes) -> Program:
    """Check the JSON of an exported model and rebuild it.

    Raises:
        ProgramError: Something in it could do more than compute, or would train.
    """
    try:
        program = json.loads(text)
        module = program["graph_module"]
        graph, ranges = module["graph"], program["range_constraints"]
        _check_symbols(ranges)
        _check_guards(program.get("guards_code") or [])
        _check_root_call(module)
        _blank_assertions(graph)
        clean = _rebuilt(program, _Rules(frozenset(ranges)), 0)
        clean["guards_code"] = []
        inputs = tuple(_user_inputs(graph, module["signature"]["input_specs"]))
        used: dict[str, int] = {}
        for node in _all_nodes(clean["graph_module"]["graph"]):
            if trains(node):
                raise ProgramError(
                    f"a model exported in training mode ({node['target']}); call eval() before exporting"
                )
            used[node["target"]] = used.get(node["target"], 0) + 1
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ProgramError(f"a graph that cannot be read ({type(error).__name__}: {error})") from error
    return Program(json.dumps(clean).encode(), inputs, dict(sorted(used.items())))


class _Rules:
    """What each text in a graph may be, by the key it stands under."""

    def __init__(self, symbols: frozenset[str]) -> None:
        self.symbols = symbols
        self.by_key: dict[str, Callable[[str], None]] = {
            "target": _check_operator,
            "as_operator": _check_operator,
            "expr_str": self._check_expression,
            "in_spec": _check_tree,
            "out_spec": _check_tree,
            "name": _check_value_name,
            "as_name": _check_value_name,
            "fqn": _check_path,
        }

    def _check_expression(self, text: str) -> None:
        if not is_arithmetic(text, self.symbols):
            raise ProgramError(f"a shape expression that is more than integer arithmetic ({shown(text)})")


def _rebuilt(value: Any, rules: _Rules, depth: int) -> Any:
    """A copy of a JSON value in which every text has been checked; debugging data is left out, devices are the CPU."""
    if depth > _DEEPEST:
        raise ProgramError("a graph nested too deeply")
    if isinstance(value, dict):
        if "as_custom_obj" in value or "custom_obj" in value:
            raise ProgramError("a custom object as an input of the graph")
        if value.keys() == {"type", "index"}:
            return {"type": _checked_device(value["type"]), "index": None}
        return {_checked_key(k): _rebuilt_entry(k, item, rules, depth) for k, item in value.items()}
    if isinstance(value, list):
        return [_rebuilt(item, rules, depth + 1) for item in value]
    if isinstance(value, str) and not _TEXT.fullmatch(value):
        raise ProgramError(f"a text that is no plain word ({shown(value)})")
    return value


def _rebuilt_entry(key: str, item: Any, rules: _Rules, depth: int) -> Any:
    if key in _DROPPED_KEYS:
        return [] if key == "guards_code" else {}
    if key == "module_call_graph":
        return [_rebuilt(entry, rules, depth + 2) for entry in item if not entry["fqn"]]
    if isinstance(item, str) and (check := rules.by_key.get(key)):
        check(item)
        return item
    if isinstance(item, list) and key == "forward_arg_names":
        for name in item:
            _check_value_name(name)
    return _rebuilt(item, rules, depth + 1)


def _check_symbols(ranges: Mapping[str, Any]) -> None:
    for name, bounds in ranges.items():
        numbers = [bound for bound in bounds.values() if bound is not None]
        if not is_symbol(name) or not all(isinstance(number, int) for number in numbers):
            raise ProgramError(f"a range of no shape symbol ({shown(name)})")


def _check_guards(guards: list[Any]) -> None:
    for guard in guards:
        if not is_guard(guard):
            raise ProgramError(f"a guard that is more than a comparison of sizes ({shown(guard)})")


def _check_root_call(module: Mapping[str, Any]) -> None:
    if fields := module.get("treespec_namedtuple_fields"):
        raise ProgramError(f"inputs or outputs of a class of its own ({shown(next(iter(fields)))})")
    if not any(entry["fqn"] == "" and entry.get("signature") for entry in module["module_call_graph"]):
        raise ProgramError("a graph that does not say how it is called")


def _check_operator(target: str) -> None:
    if why := objection(target):
        raise ProgramError(f"{why} ({shown(target)})")


def _check_tree(text: str) -> None:
    """A tree spec: torch imports modules and fills in source code by what it says."""
    _, root = json.loads(text)
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node["type"] not in _TREE_TYPES:
            raise ProgramError(f"inputs or outputs of a class of its own ({shown(node['type'])})")
        context = json.loads(node["context"]) if isinstance(node["context"], str) else node["context"]
        for key in context if isinstance(context, list) else []:
            if not (isinstance(key, int) or (isinstance(key, str) and _KEY.fullmatch(key))):
                raise ProgramError(f"an input or output with no plain name ({shown(key)})")
        if not isinstance(context, list | None):
            raise ProgramError(f"inputs or outputs of a class of its own ({shown(context)})")
        waiting += node["children_spec"]


def _check_value_name(name: Any) -> None:
    if not isinstance(name, str) or (name and not _VALUE_NAME.fullmatch(name)):
        raise ProgramError(f"a value whose name is no identifier ({shown(name)})")


def _check_path(path: str) -> None:
    if path and not _KEY.fullmatch(path):
        raise ProgramError(f"a module path with more than names and dots ({shown(path)})")


def _checked_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ProgramError(f"a name with more than letters, digits and dots ({shown(key)})")
    return key


def _checked_device(device: Any) -> str:
    if not isinstance(device, str) or not _TEXT.fullmatch(device):
        raise ProgramError(f"a device of no plain name ({shown(device)})")
    return "cpu"


def _all_nodes(graph: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for node in graph["nodes"]:
        yield node
        for argument in node["inputs"]:
            if inner := argument["arg"].get("as_graph"):
                yield from _all_nodes(inner["graph"])


def _blank_assertions(graph: Mapping[str, Any]) -> None:
    """What an assertion says when it fails quotes source text; nobody will read it."""
    for node in _all_nodes(graph):
        for argument in node["inputs"] if node["target"].startswith("torch.ops.aten._assert_") else ():
            if "as_string" in argument["arg"]:
                argument["arg"] = {"as_string": "an assertion of the model failed"}


def _user_inputs(graph: Mapping[str, Any], specs: list[Mapping[str, Any]]) -> Iterator[GraphInput]:
    for spec in specs:
        if name := spec.get("user_input", {}).get("arg", {}).get("as_tensor", {}).get("name"):
            meta = graph["tensor_values"][name]
            shape = tuple(size.get("as_int") for size in meta["sizes"])
            yield GraphInput(name, shape, meta["dtype"], tuple(_example(size) for size in meta["sizes"]))


def _example(size: Mapping[str, Any]) -> int:
    if "as_int" in size:
        return int(size["as_int"])
    hint = size["as_expr"].get("hint") or {}
    return int(hint.get("as_int", 2))


def shown(value: object) -> str:
    """A hostile text, short and printable, for an error."""
    text = str(value)
    return repr(text if len(text) <= 80 else text[:77] + "...")
