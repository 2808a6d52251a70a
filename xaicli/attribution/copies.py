"""A deep copy of a model: where `copy.deepcopy` stumbles over what a model holds, or loses it, the copy has it all."""

from __future__ import annotations

import contextlib
import copy
import copyreg
import types
import warnings
import weakref
from collections import OrderedDict
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from xaicli.attribution.rebinding import PLAIN, PROXIES, OfModel, is_torchs
from xaicli.errors import XaiError
from xaicli.heads.attributes import attributes

_Module = TypeVar("_Module", bound=nn.Module)
HOOKS_OF_FORWARD = ("_forward_pre_hooks", "_forward_hooks")
_OF_TORCH = frozenset(vars(nn.Module()))
_TRYING = -1
"""Where a memo has the ids of what is being copied part by part: no id of an object."""
_ATOMS = PLAIN | {types.FunctionType, types.BuiltinFunctionType, weakref.ref, property, range, slice, *PROXIES}
"""A deep copy leaves these as they are; those that lead to the model lead to the copy afterwards (`OfModel`)."""


def copy_of(model: _Module, *, sharing: bool = False) -> _Module:
    """A deep copy; tensors that autograd made are detached, and what cannot be copied (a lock, a file) is shared.

    Args:
        model: Unchanged.
        sharing: Whether the copy's parameters lie in the memory of the model's, until they are laid out otherwise.

    Raises:
        XaiError: A module or a tensor of it cannot be copied.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, about its pytrees.
        try:
            return _copied(model, _begun(model, sharing=sharing))
        except Exception as error:  # whatever another's class raises
            cause = error.__cause__ if isinstance(error, _UncopiedError) else error
            raise XaiError(
                f"the model cannot be copied ({type(cause).__name__}: {cause}), and the caller's own must stay "
                "unchanged",
                hint="give a freshly built model, or its checkpoint",
            ) from cause


class _UncopiedError(Exception):
    """A module or a tensor that cannot be copied: what holds it is not shared instead."""


def _copied(model: _Module, memo: dict[int, Any]) -> _Module:
    """A deep copy whose hooks and functions hold what is the copy's, where what they held is the model's."""
    copied: _Module = _deep(model, memo)
    for value in _originals(memo):  # which grow meanwhile
        if (made := memo.get(id(value), value)) is not value:
            _fill(made, value, memo)
    of_model = OfModel(memo)
    for module in copied.modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        own = vars(module)
        for held in (*(own[kind] for kind in HOOKS_OF_FORWARD if kind in own), own):
            for key, value in held.items():
                if held is not own or not (key in _OF_TORCH or issubclass(type(value), Tensor | nn.Module)):
                    held[key] = of_model.rebound(value)
    return copied


def _originals(memo: dict[int, Any]) -> list[Any]:
    """What has been copied; kept here, as `copy.deepcopy` does, so that nothing else gets its id meanwhile."""
    kept: list[Any] = memo.setdefault(id(memo), [])
    return kept


def _deep(value: Any, memo: dict[int, Any]) -> Any:
    """As `copy.deepcopy`, past the `__getattr__` of any class, and sharing the parts that cannot be copied."""
    kind = type(value)
    if kind in _ATOMS or issubclass(kind, type):
        return value
    if (found := memo.get(id(value), memo)) is not memo:
        return found
    if kind is dict or kind is OrderedDict:
        made = memo[id(value)] = kind()
        for key, part in value.items():
            made[_deep(key, memo)] = _deep(part, memo)
        return made
    if kind is list:
        items: list[Any] = memo.setdefault(id(value), [])
        items.extend(_deep(part, memo) for part in value)
        return items
    if kind in (tuple, set, frozenset):
        parts = [_deep(part, memo) for part in value]
        if kind is not set and all(one is other for one, other in zip(parts, value, strict=True)):
            return value
        return memo.setdefault(id(value), kind(parts))  # which a part that leads back here may have made
    if kind is types.MethodType:
        return types.MethodType(value.__func__, _deep(value.__self__, memo))
    n = len(memo)
    try:
        made = _of_its_kind(kind, value, memo)
    except Exception as error:
        _forget(memo, n)
        if isinstance(error, _UncopiedError):
            raise
        if issubclass(kind, nn.Module | Tensor):
            raise _UncopiedError() from error
        made = value
    memo[id(value)] = made
    _originals(memo).append(value)
    return made


def _forget(memo: dict[int, Any], n: int) -> None:
    """All but the first entries, those of a copy that came to nothing."""
    while len(memo) > n:
        memo.popitem()


def _of_its_kind(kind: Any, value: Any, memo: dict[int, Any]) -> Any:
    """A copy as its class has it; without a way of its own, by its attributes and items."""
    if issubclass(kind, Tensor) and not value.is_leaf:
        return value.detach().clone()
    if issubclass(kind, nn.Parameter) and kind is not nn.Parameter and kind.__deepcopy__ is nn.Parameter.__deepcopy__:
        # That one calls the class, with arguments that it may not take.
        return Tensor._make_subclass(kind, value.detach().clone(), value.requires_grad)
    if issubclass(kind, nn.Module) and _is_copied_by_attributes(kind, value):
        made = memo[id(value)] = object.__new__(kind)
        state = vars(value).items()
        # What `torch.compile` made of forward is of the one module, as `nn.Module.__getstate__` has it.
        made.__setstate__({name: _deep(part, memo) for name, part in state if name != "_compiled_call_impl"})
        return made
    if hasattr(kind, "__deepcopy__") or "__deepcopy__" in attributes(value):
        return _in_its_own_way(value, memo)
    if hasattr(kind, "__del__"):  # a copy would give back at its end what is the caller's: close it, delete it
        return value
    way = copyreg.dispatch_table.get(kind)
    reduced = way(value) if way is not None else kind.__reduce_ex__(value, 4)
    return value if isinstance(reduced, str) else _rebuilt(kind, value, reduced, memo)


def _in_its_own_way(value: Any, memo: dict[int, Any]) -> Any:
    """By its `__deepcopy__`; where that stumbles over what it holds, with the parts copied before."""
    n, trying = len(memo), memo[_TRYING]
    try:
        return copy.deepcopy(value, memo)
    except Exception:
        _forget(memo, n)
        if id(value) in trying:  # a part of it that leads back here
            raise
        trying.add(id(value))
        for part in list(attributes(value).values()):
            with contextlib.suppress(_UncopiedError):
                _deep(part, memo)
        trying.discard(id(value))
        return memo[id(value)] if id(value) in memo else copy.deepcopy(value, memo)


def _rebuilt(kind: Any, value: Any, reduced: tuple[Any, ...], memo: dict[int, Any]) -> Any:
    """From what `__reduce_ex__` gives: how it is made, its state, the items of a list and of a dictionary."""
    _originals(memo).append(reduced)
    make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    made = make(*(_deep(part, memo) for part in arguments))
    memo[id(value)] = made
    if state is not None and hasattr(kind, "__setstate__"):
        kind.__setstate__(made, _deep(state, memo))
    elif state is not None:
        named, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
        if named is not value:  # a dictionary that is its own `__dict__`
            attributes(made).update(_deep(named or {}, memo))
        for name, part in (slots or {}).items():
            object.__setattr__(made, name, _deep(part, memo))
    for part in items or ():
        made.append(_deep(part, memo))
    for key, part in pairs or ():
        made[_deep(key, memo)] = _deep(part, memo)
    return made


def _fill(made: Any, value: Any, memo: dict[int, Any]) -> None:
    """Give a copy the attributes that its way of being copied has lost."""
    kind, before, own = type(value), attributes(value), attributes(made)
    if not before or type(made) is not kind:
        return
    if before is value:
        object.__setattr__(made, "__dict__", made)
    elif issubclass(kind, Tensor) or not (hasattr(kind, "__deepcopy__") or is_torchs(kind)):
        anew = issubclass(kind, nn.Parameter)  # whose class has been called for the copy
        for name, part in list(before.items()):
            if anew or (name not in own and name != "_compiled_call_impl"):
                own[name] = _deep(part, memo)


def _is_copied_by_attributes(kind: type, module: nn.Module) -> bool:
    """Whether a module has no way of its own to be copied; torch's for one with a parametrization is none."""
    if is_torchs(vars(kind).get("__deepcopy__")) and kind.__name__.startswith("Parametrized"):
        kind = kind.__mro__[1]
    own = ("__new__", "__reduce__", "__reduce_ex__", "__getstate__", "__getnewargs__", "__getnewargs_ex__")
    return "__deepcopy__" not in vars(module) and not (
        hasattr(kind, "__deepcopy__")
        or kind in copyreg.dispatch_table
        or any(getattr(kind, name, None) is not getattr(nn.Module, name, None) for name in own)
    )


def _begun(model: nn.Module, *, sharing: bool) -> dict[int, Any]:
    """The beginning of a deep copy: hooks are no part of it, for what they hold may be the caller's; see `_copied`."""
    memo: dict[int, Any] = {_TRYING: set()}
    for module in model.modules():
        own = vars(module)
        for name, hooks in own.items():
            if name.endswith("_hooks") and isinstance(hooks, dict):
                memo[id(hooks)] = OrderedDict(hooks)
        for tensor in own.get("_parameters", {}).values():
            if tensor is None:
                continue
            if tensor.grad is not None:
                memo[id(tensor.grad)] = None
            if sharing and type(tensor) is nn.Parameter and id(tensor) not in memo:
                memo[id(tensor)] = nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad)
                _originals(memo).append(tensor)
        for tensor in own.get("_buffers", {}).values():
            # What a batch norm counts in is no view of anything, which a deep copy would have to find out.
            if type(module) in _BATCH_NORMS and type(tensor) is Tensor and not tensor.requires_grad:
                memo[id(tensor)] = tensor.clone()
                _originals(memo).append(tensor)
    return memo


_BATCH_NORMS = frozenset((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))
