"""How a model takes its inputs: in their order, by name, or all together as one dict or list."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, get_origin

import torch
from torch import fx, nn

from xaicli.errors import UsageError

_OWN_NAMES = re.compile(r"(input\d+)?")
"""What inputs are called that nobody named."""


def is_own_name(name: str) -> bool:
    """Whether an input is called as one is that nobody named."""
    return bool(_OWN_NAMES.fullmatch(name))


class Form(Enum):
    """What forward's arguments are."""

    EACH = "each"
    """An argument an input."""
    DICT = "dict"
    """One dict of the inputs by name."""
    LIST = "list"
    """One list of the inputs in their order."""


@dataclass(frozen=True)
class Call:
    """How a model takes its inputs.

    Attributes:
        positions: The inputs that are passed by position, in call order.
        keywords: Those that are passed by name, (name, position among the inputs).
        form: What they are passed in.
    """

    positions: tuple[int, ...]
    keywords: tuple[tuple[str, int], ...] = ()
    form: Form = Form.EACH

    def __call__(
        self, model: Callable[..., Any], inputs: Sequence[Any], constants: Mapping[str, Any] = MappingProxyType({})
    ) -> Any:
        """Whatever the model returns; `constants` are passed besides, by name."""
        named = {name: inputs[i] for name, i in self.keywords}
        if self.form is Form.DICT:
            return model({**named, **constants})
        if self.form is Form.LIST:
            return model([inputs[i] for i in self.positions], **constants)
        return model(*[inputs[i] for i in self.positions], **named, **constants)

    @property
    def order(self) -> tuple[int, ...]:
        """The inputs in the order of forward's tensors."""
        return (*self.positions, *(position for _, position in self.keywords))


def calls_of(model: nn.Module, names: Sequence[str]) -> list[Call]:
    """The ways a model may take its inputs, the likeliest first; more than one where its signature leaves it open.

    By name where the caller named the inputs and the model's forward knows the names; as one dict where it takes one
    argument and knows none of them, or as one list; else in their order.

    Raises:
        UsageError: Forward knows some of the names and not the others.
    """
    each = Call(tuple(range(len(names))))
    by_name = tuple((name, i) for i, name in enumerate(names))
    spec = getattr(model, "_in_spec", None)
    if isinstance(model, fx.GraphModule) and spec is not None:
        return [_call_of_graph(model, spec, list(names), each)]
    known, takes_any = parameters_of(model)
    listed, one = _one_argument(model, len(names))
    if all(is_own_name(name) for name in names):
        return [Call(each.positions, form=Form.LIST)] if listed else [each]
    matching = [name for name in names if name in known]
    if len(matching) == len(names) or (takes_any and matching):
        return [Call((), by_name)]
    together = Call((), by_name, Form.DICT)
    if matching:
        unknown = next(name for name in names if name not in known)
        raise UsageError(f"the model's forward takes no {unknown!r}", hint=f"it takes {', '.join(known)}")
    if takes_any and not known:
        return [Call((), by_name), together]
    if one is None:
        return [each]
    in_a_list = Call(each.positions, form=Form.LIST)
    return [together, in_a_list] if one else [each, together, in_a_list]


def _one_argument(model: nn.Module, n: int) -> tuple[bool, bool | None]:
    """Whether forward has room for one argument only, of n inputs; whether that is a dict, None for certainly not."""
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return False, None
    room = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)]
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters) or not room or len(needed) > 1:
        return False, None
    if needed and needed[0] is not room[0]:
        return False, None
    full = n > len(room)
    if _is_tensor(room[0].annotation) and not full:
        return False, None
    return full, full or _is_dict(room[0].annotation)


def takes_one(model: nn.Module) -> bool | None:
    """Whether forward takes one tensor and nothing else; None where its one argument may be a list of tensors."""
    spec = getattr(model, "_in_spec", None)
    if isinstance(model, fx.GraphModule) and spec is not None:
        placeholders = sum(node.op == "placeholder" for node in model.graph.nodes)
        return placeholders == 1 and _call_of_graph(model, spec, [""], Call((0,))).form is Form.EACH
    if isinstance(model, torch.jit.ScriptModule):
        return len(parameters_of(model)[0]) == 1
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return False
    if len(parameters) != 1 or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.POSITIONAL_ONLY,
    ):
        return False
    if _is_tensor(parameters[0].annotation):
        # Layers say that they take a tensor; what holds them says nothing.
        return True
    return None if parameters[0].annotation in (inspect.Parameter.empty, Any, "Any", "typing.Any") else False


def _is_dict(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return bool(re.match(r"(typing\.)?(dict|Dict|Mapping|MutableMapping|BatchEncoding)\b", annotation))
    kind = get_origin(annotation) or annotation
    return isinstance(kind, type) and issubclass(kind, Mapping)


def _is_tensor(annotation: Any) -> bool:
    return annotation is torch.Tensor or (isinstance(annotation, str) and annotation.endswith("Tensor"))


def parameters_of(model: nn.Module) -> tuple[tuple[str, ...], bool]:
    """The names forward takes, and whether it takes any others."""
    if isinstance(model, torch.jit.ScriptModule):
        schema: Any = model.forward
        return tuple(argument.name for argument in schema.schema.arguments[1:]), False
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return (), False
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return tuple(named), any(p.kind is p.VAR_KEYWORD for p in parameters)


def _call_of_graph(model: fx.GraphModule, spec: Any, names: list[str], each: Call) -> Call:
    """An exported graph takes by name just what it was exported with by name, and a dict for a dict."""
    entries = [node.name for node in model.graph.nodes if node.op == "placeholder"]
    arguments, named = (spec.child(i) if hasattr(spec, "child") else spec.children_specs[i] for i in (0, 1))
    parts = arguments.children() if hasattr(spec, "child") else arguments.children_specs
    keywords = [str(name) for name in named.context or ()]
    if len(parts) == 1 and not keywords and parts[0].type in (dict, list):
        keys = [str(key) for key in parts[0].context or ()]
        if parts[0].type is dict and set(keys) == set(names):
            return Call((), tuple((key, names.index(key)) for key in keys), Form.DICT)
        if parts[0].type is list and len(entries) == len(names):
            return Call(each.positions, form=Form.LIST)
    by_position = entries[: len(entries) - len(keywords)]
    if not set(names) <= {*by_position, *keywords}:
        if keywords and len(names) == len(entries):
            first = each.positions[: len(by_position)]
            return Call(first, tuple(zip(keywords, each.positions[len(by_position) :], strict=True)))
        return each
    return Call(
        tuple(names.index(name) for name in by_position if name in names),
        tuple((name, names.index(name)) for name in keywords if name in names),
    )


def parameter_names(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """What forward calls the inputs: the caller's names, else those of its parameters, "" where there are none."""
    if isinstance(model, fx.GraphModule):
        known: Sequence[str] = [node.name for node in model.graph.nodes if node.op == "placeholder"]
    else:
        known = parameters_of(model)[0]
    return tuple(name if not is_own_name(name) else known[i] if i < len(known) else "" for i, name in enumerate(names))
