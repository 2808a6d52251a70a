"""The graph of an exported model, admitted by allow-list and rebuilt without what only debugging needs.

torch turns the graph's names into Python source, its shape expressions into sympy input, its guards into a function and
its operator names into attributes of the `torch` module. So every text in it is checked here: names are identifiers,
operators are ATen's, expressions are arithmetic. What is not needed (stack traces, guards, module calls) is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xaicli.checkpoint.rules import is_arithmetic, is_guard, is_symbol, objection, trains

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
