"""A model in evaluation mode for a while: there by its own `eval()`, and back to what it was."""

from __future__ import annotations

import functools
import inspect
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.overrides import TorchFunctionMode

from xaicli.errors import XaiError
from xaicli.heads.attributes import attributes

_UNINITIALIZED = (UninitializedParameter, UninitializedBuffer)
_PARTS = ("_parameters", "_buffers", "_modules")


@contextmanager
def gradients_kept(*models: nn.Module) -> Iterator[None]:
    """The caller's gradients are as they were afterwards: a forward that calls `backward` adds to none of them."""
    # All of them, also of what is frozen now: forward may thaw it, and optimizers step whatever has a gradient.
    gradients = [(p, p.grad) for model in models for p in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient


@contextmanager
def evaluating(model: nn.Module, *, written: Iterable[Tensor] = ()) -> Iterator[None]:
    """The model in evaluation mode; afterwards, also after an error, it trains on as if nothing had been.

    Modules with an `eval()` or `train()` of their own are brought there and back by it: one merges low-rank weights,
    another keeps its batch norm on the batch. What that leaves otherwise - the mode of a single module set by hand,
    the last bits of a weight that was added to and taken from - is put back besides, as are gradients and their flags,
    and what passes write: buffers, attributes and what stands in them (`left_as_it_was`), weights (`weights_kept`).

    Args:
        model: In any mode.
        written: The parameters that forward may write in place.

    Raises:
        XaiError: The model's own `eval()` fails.
    """
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with gradients_kept(model), weights_kept(model, written), left_as_it_was(model):
        before = _Before(model)
        try:
            into_evaluation(model)
            before.note_what_changed()
            yield
        finally:
            before.put_back()
            for parameter, wanted in flags:
                if parameter.requires_grad != wanted:
                    parameter.requires_grad_(wanted)


def modules_behind(function: Any) -> tuple[nn.Module, ...]:
    """The modules that something callable reaches: itself, or by its closure, globals, defaults, object and parts.

    Args:
        function: A module, function, bound method, partial, or object with a `__call__`.
    """
    found: dict[int, nn.Module] = {}
    seen: set[int] = set()
    waiting = [(function, _DEEP)]
    while waiting and len(seen) < _MOST:
        value, depth = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            found[id(value)] = value
        elif depth:
            waiting += [(part, depth - 1) for part in _reached_by(value)]
    inside = {id(part) for module in found.values() for part in module.modules() if part is not module}
    return tuple(module for module in found.values() if id(module) not in inside)


def _reached_by(value: Any) -> list[Any]:
    """What a function, or something that holds functions and modules, leads to."""
    if isinstance(value, types.FunctionType):
        cells = []
        for cell in value.__closure__ or ():
            with suppress(ValueError):  # not yet bound
                cells.append(cell.cell_contents)
        is_torchs = str(value.__module__).partition(".")[0] == "torch"
        names, around = frozenset() if is_torchs else names_in(value.__code__), value.__globals__
        used = [around[name] for name in names if name in around]
        of_modules = [vars(m).get(name) for m in used if isinstance(m, types.ModuleType) for name in names]
        nets = [part for part in of_modules if isinstance(part, nn.Module)]
        defaults = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        return [*cells, *nets, *defaults, *vars(value).values(), *used]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, dict | list | tuple | set):
        return list(value.values() if isinstance(value, dict) else value) if len(value) <= _FEW else []
    if isinstance(value, type | types.ModuleType | Tensor):
        return []
    call = vars(type(value)).get("__call__")
    return [*attributes(value).values(), *([call] if isinstance(call, types.FunctionType) else [])]


def names_in(code: types.CodeType) -> frozenset[str]:
    """All names in a function and those written inside of it: of globals, attributes and modules."""
    inside = (names_in(part) for part in code.co_consts if isinstance(part, types.CodeType))
    return frozenset(code.co_names).union(*inside)


_FEW = 1_000
"""In a longer list or dictionary no module is looked for."""


@contextmanager
def weights_kept(model: nn.Module, written: Iterable[Tensor] = ()) -> Iterator[None]:
    """Weights that forward constrains by itself (`weight.data = ...`, `max_norm`) are what they were.

    Args:
        model: Its tables with a `max_norm`, and weights that get other memory, are known by themselves.
        written: The parameters that forward may write in place besides: only a copy of them knows their values.
    """
    tables = [m.weight for m in model.modules() if isinstance(m, _TABLES) and m.max_norm is not None]
    values = _values({id(tensor): tensor for tensor in (*tables, *written)}.values())
    # Of torch's own class only: what is spread over processes is given other memory by its keeper.
    plain = [p for p in model.parameters() if type(p) is nn.Parameter and not hasattr(p, "_is_flat_param")]
    memory = [(parameter, parameter.data) for parameter in plain]
    try:
        yield
    finally:
        for parameter, before in memory:
            if not _lies_at(parameter, before) and not (
                parameter.device == before.device and _same(parameter.data, before)
            ):
                parameter.data = before
        with torch.no_grad():
            _put_back(values)


_TABLES = (nn.Embedding, nn.EmbeddingBag)


def _lies_at(tensor: Tensor, before: Tensor) -> bool:
    if tensor.layout is not torch.strided or tensor.is_meta:
        return True
    return tensor.data_ptr() == before.data_ptr() and tensor.shape == before.shape


class Writing(TorchFunctionMode):
    """Looks on while a fresh copy of a model runs: which weights does forward write?"""

    def __init__(self) -> None:
        super().__init__()
        self._past_versions = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        owner = getattr(func, "__self__", None)  # of `data`, whose getter is asked for
        self._past_versions |= getattr(func, "__name__", "") in _PAST_VERSIONS or owner is Tensor.data
        return func(*args, **(kwargs or {}))

    def written(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
        """The weights of the model that were written in its copy.

        Args:
            pairs: Each of the model's with the copy's.
        """
        pairs = list(pairs)
        if not self._past_versions:  # comparing values reads all of a large model
            return tuple(own for own, other in pairs if other._version)
        unchanged = _unchanged_there(pairs)
        return tuple(
            own for own, other in pairs if other._version or not ((unchanged and own.is_cuda) or _same(own, other))
        )


_PAST_VERSIONS = frozenset(("numpy", "storage", "untyped_storage", "__array__", "__dlpack__"))
"""What is written through these, and through `data`, raises no version of the tensor."""


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Buffers that forward writes in evaluation mode, too, are what they were: statistics, ranges, counters, banks.

    They are told by their values: `.data` and fused operations change them without a word to autograd.
    """
    own = [(module._buffers, dict(module._buffers)) for module in _settled(model)]
    buffers = _values(model.buffers())
    try:
        yield
    finally:
        for held, before in own:
            held.clear()
            held.update(before)
        with torch.no_grad():
            _put_back(buffers)


@contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """All that forward keeps in a model is undone, by value: buffers, attributes, what stands in them, and hooks.

    What stands in them: lists, dictionaries, sets, tensors and arrays, however deep, and objects of nothing else (a
    meter that counts). Not what other objects hold (a logger, a queue, a file, a random generator), nor what is no
    attribute of a module: globals, closures, attributes of its class.
    """
    contents = _Contents(model)
    with buffers_kept(model):
        try:
            yield
        finally:
            contents.put_back()


class _Contents:
    """What the attributes of a model's modules hold, those that torch keeps (parameters, parts, hooks) included."""

    def __init__(self, model: nn.Module) -> None:
        self._held: list[tuple[Any, Any]] = []
        self._tensors: list[tuple[Tensor, Tensor]] = []
        self._seen = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
        for module in _settled(model):
            self._note(vars(module), _DEEP)

    def _note(self, value: Any, depth: int) -> None:
        """Keep what a value holds, where it can change in place, and the same of each thing that it holds."""
        kind = type(value)
        if kind in _UNCHANGING or id(value) in self._seen:
            return
        self._seen.add(id(value))
        if isinstance(value, Tensor):
            self._tensors += _values([value])
        elif kind is np.ndarray:
            if value.flags.writeable:
                self._held.append((value, value.copy()))
        elif (base := _base_of(kind)) is not None and (kind in _CONTAINERS or _is_data(value)):
            before = _items_of(value, base)
            self._held.append((value, before))
            parts = before.values() if base in _DICTS else before
            for part in parts if depth and len(before) <= _MOST else ():
                kind = type(part)
                if kind in _CONTAINERS and not part:  # most of what a module has: hooks that nobody has set
                    self._held.append((part, kind()))
                elif kind not in _UNCHANGING:
                    self._note(part, depth - 1)
            if depth and type(value) not in _CONTAINERS:
                self._note(attributes(value), depth)
        elif issubclass(kind, tuple):
            for part in tuple.__iter__(value) if depth else ():
                self._note(part, depth - 1)
        elif depth and _is_data(value):
            self._note(attributes(value), depth)

    def put_back(self) -> None:
        """All of it as it was; what has not changed is not touched."""
        for value, before in self._held:
            if isinstance(value, np.ndarray):
                if not np.array_equal(value, before):
                    np.copyto(value, before)
                continue
            base = _base_of(type(value))
            if not base.__len__(value) and not before:
                continue
            now = _items_of(value, base)
            if base in _DICTS:
                if list(now) != list(before) or any(now[name] is not part for name, part in before.items()):
                    base.clear(value)
                    for name, part in before.items():
                        base.__setitem__(value, name, part)
            elif base is set:
                if now != before:
                    base.clear(value)
                    base.update(value, before)
            elif len(now) != len(before) or any(one is not part for one, part in zip(now, before, strict=True)):
                base.clear(value)
                base.extend(value, before)
        with torch.no_grad():
            _put_back(self._tensors)


def _base_of(kind: type) -> Any:
    """The container of Python's own that a class of people's is made of: past whatever that does in its methods."""
    return next((base for base in _BASES if issubclass(kind, base)), None)


def _items_of(value: Any, base: Any) -> Any:
    return dict(base.items(value)) if base in _DICTS else (set if base is set else list)(base.__iter__(value))


_DICTS = (OrderedDict, dict)
_BASES = (*_DICTS, list, set, deque)


_DEEP = 6
"""How far below a module's attributes things that change are looked for."""
_MOST = 100_000
"""A longer list or dictionary is put back with the things it held, not each of those things."""
_CONTAINERS = frozenset((list, dict, set, deque, OrderedDict, defaultdict, Counter))
_UNCHANGING = frozenset(
    (
        *(bool, int, float, complex, str, bytes, type(None), type, range, slice, torch.dtype, torch.device, torch.Size),
        *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType),
    )
)


def _is_data(value: Any) -> bool:
    """Whether an object has nothing but numbers, texts, tensors and lists of such: no lock, no thread, no other object.

    Another object's attributes may be another thread's: put back, its work would be undone.
    """
    own = attributes(value)
    if issubclass(type(value), nn.Module | type):
        return False
    if own is value or (not own and _base_of(type(value))):  # a dictionary whose attributes are its items
        return True
    if type(own) is not dict:
        return False
    plain = _UNCHANGING | _CONTAINERS | {tuple, np.ndarray, Tensor}
    return all(type(part) in plain for part in own.values())


def _settled(model: nn.Module) -> list[nn.Module]:
    """The modules that can be put back in Python: what a lazy layer makes of itself in its first pass stays."""
    return [
        module
        for module in model.modules()
        if not isinstance(module, torch.jit.ScriptModule)
        and not any(isinstance(tensor, _UNINITIALIZED) for tensor in _own_tensors(module))
    ]


def _own_tensors(module: nn.Module) -> Iterator[Tensor]:
    for held in (module._parameters, module._buffers):
        yield from (tensor for tensor in held.values() if tensor is not None)


def into_evaluation(model: nn.Module, *, anew: bool = False) -> None:
    """Bring a model into evaluation mode by its own `eval()`, unless all of it is there already.

    Args:
        model: Changed.
        anew: Also of one that is there: what its own `eval()` makes of its weights is to be made of those it has now.

    Raises:
        XaiError: Its own `eval()` fails.
    """
    training = [module for module in model.modules() if _trains(module)]
    if (training or anew) and _brings_itself(model) and _brought(model, False):
        return
    for module in training:
        module.training = False


def _brought(module: nn.Module, training: bool) -> bool:
    """Whether a module has methods that bring it into a mode; they are called.

    Raises:
        XaiError: They fail.
    """
    try:
        with torch.no_grad():
            module.train() if training else module.eval()
    except NotImplementedError:  # an exported graph: it is the one or the other
        return False
    except Exception as error:  # whatever another's code raises
        method, said = "train" if training else "eval", str(error).strip().splitlines()[:1]
        raise XaiError(
            f"{method}() of the model's {type(module).__name__} fails: {': '.join([type(error).__name__, *said])}",
            hint=f"model.{method}() by itself shows where",
        ) from error
    return True


def _trains(module: nn.Module) -> bool:
    return bool(getattr(module, "training", False))  # A frozen TorchScript module has no such flag.


def _brings_itself(model: nn.Module) -> bool:
    """Whether a part of a model has a way of its own into evaluation mode, and none a `train(loader)`, say."""
    own = [module for module in model.modules() if _has_modes_of_its_own(module)]
    return bool(own) and all(_is_switch(module) for module in own)


def _is_switch(module: nn.Module) -> bool:
    """Whether `eval()` and `train(mode)` can be called so; people also give these names to what trains a model."""
    try:
        taken = list(inspect.signature(module.train).parameters.values())
        inspect.signature(module.eval).bind()
    except (TypeError, ValueError):
        return False
    return bool(taken) and (
        taken[0].default is True or taken[0].name == "mode" or taken[0].kind is inspect.Parameter.VAR_POSITIONAL
    )


def _has_modes_of_its_own(module: nn.Module) -> bool:
    own = vars(module)
    kind = type(module)
    return "train" in own or "eval" in own or kind.train is not nn.Module.train or kind.eval is not nn.Module.eval


class _Before:
    """What a model was before it was brought into evaluation mode."""

    def __init__(self, model: nn.Module) -> None:
        self._modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
        own = [module for module, _ in self._modes if _has_modes_of_its_own(module)]
        # Modes of its own, which may rewrite weights and attributes: of others nothing but the flags can change.
        self._has_own = _brings_itself(model) and any(training for _, training in self._modes)
        plain = [m for m, _ in self._modes if self._has_own and not isinstance(m, torch.jit.ScriptModule)]
        self._held: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (held, dict(held)) for m in plain for held in (vars(m), *(vars(m)[part] for part in _PARTS))
        ]
        weights = {id(t): t for m in own if self._has_own for t in (*m.parameters(), *m.buffers())}
        self._weights = _values(weights.values())

    def note_what_changed(self) -> None:
        """Once in evaluation mode: keep of what was only that which is something else now."""
        kept = []
        for held, was in self._held:
            other = {name: value for name, value in was.items() if held.get(name, _GONE) is not value}
            new = dict.fromkeys(held.keys() - was.keys(), _GONE)
            kept.append((held, {name: value for name, value in (other | new).items() if name != "training"}))
        self._held = [(held, was) for held, was in kept if was]
        self._weights = [(tensor, was) for tensor, was in self._weights if not _same(tensor, was)]

    def put_back(self) -> None:
        """The model as it was: by its own `train()`, then what that has not brought back."""
        try:
            for module, training in self._modes if self._has_own else ():  # from the outside to the inside
                if _trains(module) != training:
                    _brought(module, training)
        finally:
            for held, was in self._held:
                for name, value in was.items():
                    if value is _GONE:
                        held.pop(name, None)
                    else:
                        held[name] = value
            _put_back(self._weights)
            for module, training in self._modes:
                if _trains(module) != training:
                    module.training = training


_GONE = object()


def _values(tensors: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Tensors, each with a copy of its values; those of lazy layers have none yet."""
    return [(t, t.detach().clone()) for t in tensors if not isinstance(t, _UNINITIALIZED)]


def _put_back(values: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Tensors with the values they had: past autograd, which may need them for a gradient of the caller's."""
    values = list(values)
    unchanged = _unchanged_there(values)
    for tensor, before in values:
        if (unchanged and tensor.is_cuda) or _same(tensor, before):
            continue
        if tensor.shape == before.shape and tensor.dtype == before.dtype:
            tensor.data.copy_(before)
        else:
            tensor.data = before


def _unchanged_there(values: Iterable[tuple[Tensor, Tensor]]) -> bool:
    """Whether all tensors on GPUs have the values they had: asked once, since each answer is waited for."""
    there = [(tensor, before) for tensor, before in values if tensor.is_cuda]
    if len({tensor.device for tensor, _ in there}) != 1 or any(
        tensor.layout is not torch.strided or tensor.shape != before.shape or tensor.dtype != before.dtype
        for tensor, before in there
    ):
        return False
    return bool(torch.stack([(tensor == before).all() for tensor, before in there]).all())


def _same(tensor: Tensor, before: Tensor) -> bool:
    if tensor.shape != before.shape or tensor.dtype != before.dtype:
        return False
    # There is nothing to compare on "meta", and torch compares no sparse tensors.
    return tensor.is_meta or (tensor.layout is torch.strided and torch.equal(tensor, before))
