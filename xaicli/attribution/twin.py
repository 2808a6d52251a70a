"""A private copy of a model: it answers as the caller's own, and nothing done to it reaches the caller's.

Hooks: those that change what passes through them, and torch's own (weight norm, pruning), belong to the model and stay;
those that only look are the caller's instruments and are left out of every gradient pass, unless the model answers
otherwise without them. What hooks hold of the model, a list that they collect in, is the copy's own in the copy.
"""

from __future__ import annotations

import copy
import copyreg
import functools
import types
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from xaicli.checkpoint.weights import GATHER, is_sharded
from xaicli.errors import XaiError
from xaicli.heads.evaluation import into_evaluation

_Module = TypeVar("_Module", bound=nn.Module)
_FORWARD = ("_forward_pre_hooks", "_forward_hooks")
_OF_TORCH = frozenset(vars(nn.Module()))
_BACKWARD = ("_backward_pre_hooks", "_backward_hooks")
_DEEP = 6
"""How far below a module's attributes things that cannot be copied are looked for; in a hook, what is the model's."""
_MOST = 10_000
"""A longer list or dictionary is a caller's data: nothing of the model is looked for in it."""
_PLAIN = frozenset((bool, int, float, complex, str, bytes, type(None), type, types.ModuleType, types.CodeType))


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside `DataParallel`, `DistributedDataParallel`, FSDP and `torch.compile`.

    A wrapper passes inputs on by position or waits for other processes; what is inside answers the same without.
    """
    while True:
        inner = next((m for name in _INSIDE if isinstance(m := getattr(model, name, None), nn.Module)), None)
        parallel = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
        if inner is None or not (parallel or type(model).__name__ in _WRAPPERS):
            return model
        model = inner


_INSIDE = ("_orig_mod", "module", "_fsdp_wrapped_module")
_WRAPPERS = frozenset(("OptimizedModule", "FullyShardedDataParallel"))


def copy_of(model: _Module, *, sharing: bool = False) -> _Module:
    """A deep copy; tensors that autograd made are detached, and what cannot be copied (a lock, a file) is shared.

    Args:
        model: Unchanged.
        sharing: Whether the copy's parameters lie in the memory of the model's, until they are laid out otherwise.

    Raises:
        XaiError: It cannot be copied even so.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, about its pytrees.
        try:
            return _copied(model, _shared(model, tensors=sharing))
        except Exception:
            memo = _shared(model, tensors=sharing)
            for module in model.modules():
                _prepare(vars(module), memo, set(), _DEEP)
            try:
                return _copied(model, memo)
            except Exception as error:
                raise XaiError(
                    f"the model cannot be copied ({type(error).__name__}: {error}), and the caller's own must stay "
                    "unchanged",
                    hint="give a freshly built model, or its checkpoint",
                ) from error


def private_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode with all hooks of forward passes, without gradients, wrappers and hooks of backward."""
    if name := next((n for n, p in model.named_parameters() if is_sharded(p)), ""):
        raise XaiError(f"the model is sharded over processes (FSDP, DTensor): {name}", hint=GATHER)
    twin = copy_of(unwrapped(model))
    _take_out_of_inference(twin)
    into_evaluation(twin)
    for module in twin.modules():
        for name, child in module.named_children():
            if (inner := unwrapped(child)) is not child:
                setattr(module, name, inner)
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for kind in _BACKWARD:
            getattr(module, kind).clear()
        for parameter in module.parameters(recurse=False):
            parameter.grad = None
    for tensor in twin.parameters():
        tensor.requires_grad_(False)
    return twin


def set_by_hand(model: nn.Module, twin: nn.Module) -> str:
    """Which parts of a model in evaluation mode were in training mode, as a note, "" for none.

    Args:
        model: As it was given.
        twin: Its private copy: what the model's own `eval()` leaves in training mode is still so there.
    """
    if any(isinstance(module, fx.GraphModule) for module in model.modules()):
        return ""  # the flags inside of a graph say nothing
    trains = {name for name, module in twin.named_modules() if getattr(module, "training", False)}
    parts = [name for name, module in model.named_modules() if getattr(module, "training", False)]
    parts = [name for name in parts if name not in trains] if not getattr(model, "training", False) else []
    if not parts:
        return ""
    said = ", ".join(parts[:3]) + (f" and {len(parts) - 3} more" if len(parts) > 3 else "")
    return f"{said} had been put into training mode in a model in evaluation mode; explained is its evaluation mode"


def _take_out_of_inference(twin: nn.Module) -> None:
    """Tensors that were made under `torch.inference_mode()` as ones that autograd takes."""
    made: dict[int, Tensor] = {}
    for module in twin.modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        pairs: tuple[tuple[Any, bool], ...] = ((module._parameters, True), (module._buffers, False))
        for held, are_parameters in pairs:
            for name, tensor in held.items():
                if tensor is not None and tensor.is_inference():
                    plain = made.setdefault(id(tensor), tensor.clone())
                    held[name] = nn.Parameter(plain, requires_grad=False) if are_parameters else plain


class Hooks:
    """The caller's hooks on forward passes of a copy, torch's own left aside."""

    def __init__(self, twin: nn.Module) -> None:
        self._found: list[tuple[str, Any, int, Callable[..., Any]]] = []
        self._active: set[int] = set()
        for name, module in twin.named_modules():
            for kind in () if isinstance(module, torch.jit.ScriptModule) else _FORWARD:
                hooks = getattr(module, kind)
                for key, hook in hooks.items():
                    if not _is_torchs(hook):
                        self._found.append((name or type(module).__name__, hooks, key, hook))

    def __len__(self) -> int:
        return len(self._found)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note, in the passes of this block, which hooks give something back."""
        for number, (_, hooks, key, hook) in enumerate(self._found):
            hooks[key] = self._noting(number, hook)
        try:
            yield
        finally:
            for _, hooks, key, hook in self._found:
                hooks[key] = hook

    def _noting(self, number: int, hook: Callable[..., Any]) -> Callable[..., Any]:
        def note(*arguments: Any, **named: Any) -> Any:
            result = hook(*arguments, **named)
            if result is not None:
                self._active.add(number)
            return result

        return note

    def leave_out_the_idle(self) -> None:
        """Take away those that gave nothing back."""
        for number, (_, hooks, key, _hook) in enumerate(self._found):
            if number not in self._active:
                hooks.pop(key, None)

    def put_back(self) -> None:
        """All of them again."""
        for _, hooks, key, hook in self._found:
            hooks[key] = hook
        self._active = set(range(len(self._found)))

    def kept(self) -> tuple[str, ...]:
        """The modules whose hooks are part of the model."""
        return tuple(dict.fromkeys(self._found[number][0] for number in sorted(self._active)))

    def names(self) -> tuple[str, ...]:
        """The modules that have hooks."""
        return tuple(dict.fromkeys(name for name, *_ in self._found))


def _is_torchs(hook: Any) -> bool:
    made = getattr(hook, "__module__", None) or type(hook).__module__
    return str(made).partition(".")[0] == "torch"


def _copied(model: _Module, memo: dict[int, Any]) -> _Module:
    """A deep copy whose hooks and functions hold what is the copy's, where what they held is the model's."""
    copied: _Module = _deep(model, memo)
    of_model = _OfModel(memo)
    for module in copied.modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        own = vars(module)
        for held in (*(own[kind] for kind in _FORWARD if kind in own), own):
            for key, value in held.items():
                if held is not own or not (key in _OF_TORCH or isinstance(value, Tensor | nn.Module)):
                    held[key] = of_model.rebound(value)
    return copied


def _deep(value: Any, memo: dict[int, Any]) -> Any:
    """As `copy.deepcopy`, which takes twice as long for a model of many modules."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if (found := memo.get(id(value), memo)) is not memo:
        return found
    if kind is dict or kind is OrderedDict:
        made = memo[id(value)] = kind()
        for key, part in value.items():
            made[_deep(key, memo)] = _deep(part, memo)
        return made
    if kind in (tuple, set) and all(type(part) in _PLAIN for part in value):
        return value if kind is tuple else memo.setdefault(id(value), set(value))
    if not isinstance(value, nn.Module) or not _is_copied_by_attributes(kind) or "__deepcopy__" in vars(value):
        return copy.deepcopy(value, memo)
    made = memo[id(value)] = object.__new__(kind)
    state = vars(value).items()
    # What `torch.compile` made of forward is of the one module, as `nn.Module.__getstate__` has it.
    made.__setstate__({name: _deep(part, memo) for name, part in state if name != "_compiled_call_impl"})
    return made


def _is_copied_by_attributes(kind: type) -> bool:
    """Whether a class of modules has no way of its own to be copied."""
    own = ("__new__", "__reduce__", "__reduce_ex__", "__getstate__", "__getnewargs__", "__getnewargs_ex__")
    return not (
        hasattr(kind, "__deepcopy__")
        or kind in copyreg.dispatch_table
        or any(getattr(kind, name, None) is not getattr(nn.Module, name, None) for name in own)
    )


class _OfModel:
    """What of a function is a model's own, as the copy's: `copy.deepcopy` leaves functions and all they hold alone.

    Args:
        memo: Of the deep copy: {id of what is the model's: what is the copy's}.
    """

    def __init__(self, memo: dict[int, Any]) -> None:
        self._made: dict[int, Any] = memo
        self._kept: list[Any] = []
        self._others: dict[int, int] = {}
        """{id of what holds nothing of the model: how deep that was looked}."""

    def rebound(self, value: Any, depth: int = _DEEP) -> Any:
        """The value, or one made anew where something of the model is in it; what else it holds stays the caller's."""
        if id(value) in self._made:
            return self._made[id(value)]
        if depth < self._others.get(id(value), 0) or type(value) in _PLAIN:
            return value
        made = self._anew(value, depth)
        if made is value:
            self._others[id(value)] = depth + 1
        else:
            self._made[id(value)] = made
        self._kept.append(value)  # so that nothing else gets its id
        return made

    def _anew(self, value: Any, depth: int) -> Any:
        made = value
        if isinstance(value, types.FunctionType):
            made = self._function(value, depth)
        elif isinstance(value, types.MethodType):
            owner = self.rebound(value.__self__, depth - 1)
            made = value if owner is value.__self__ else types.MethodType(value.__func__, owner)
        elif isinstance(value, functools.partial):
            parts = (value.func, value.args, value.keywords)
            func, args, keywords = (self.rebound(part, depth - 1) for part in parts)
            if any(one is not other for one, other in zip((func, args, keywords), parts, strict=True)):
                made = functools.partial(func, *args, **keywords)
        elif isinstance(value, weakref.ref):
            if (held := value()) is not None and (other := self.rebound(held, depth - 1)) is not held:
                made = weakref.ref(other)
        elif isinstance(value, list | tuple | set | frozenset | dict):
            made = self._container(value, depth) if len(value) <= _MOST else value
        elif not isinstance(value, nn.Module | Tensor | type) and type(getattr(value, "__dict__", None)) is dict:
            attributes = self.rebound(vars(value), depth - 1)
            if attributes is not vars(value):
                try:
                    made = copy.copy(value)
                    vars(made).update(attributes)
                except Exception:  # whatever another's class raises: it stays the caller's
                    made = value
        return made

    def _container(self, value: Any, depth: int) -> Any:
        made = value
        if type(value) in (list, tuple, set, frozenset):
            items = [self.rebound(part, depth - 1) for part in value]
            if any(one is not other for one, other in zip(items, value, strict=True)):
                made = type(value)(items)
        elif type(value) is dict:
            pairs = [(self.rebound(k, depth - 1), self.rebound(v, depth - 1)) for k, v in value.items()]
            if any(k is not a or v is not b for (k, v), (a, b) in zip(pairs, value.items(), strict=True)):
                made = dict(pairs)
        return made

    def _function(self, value: types.FunctionType, depth: int) -> types.FunctionType:
        around, names = value.__globals__, _names_in(value.__code__) if not _is_torchs(value) else ()
        globals_ = {n: around[n] for n in names if n in around and around[n] is not value}
        others = {n: self.rebound(held, depth - 1) for n, held in globals_.items()}
        others = {n: held for n, held in others.items() if held is not globals_[n]}
        cells = tuple(self._cell(cell, depth) for cell in value.__closure__ or ())
        defaults, named = (self.rebound(part, depth - 1) for part in (value.__defaults__, value.__kwdefaults__))
        parts = (*cells, defaults, named)
        before = (*(value.__closure__ or ()), value.__defaults__, value.__kwdefaults__)
        if not others and all(one is other for one, other in zip(parts, before, strict=True)):
            return value
        around = around | others if others else around
        made = types.FunctionType(value.__code__, around, value.__name__, defaults, cells)
        if others:
            around |= {n: made for n in names if around.get(n) is value}
        made.__kwdefaults__ = named
        made.__qualname__, made.__module__ = value.__qualname__, value.__module__
        vars(made).update(vars(value))
        return made

    def _cell(self, cell: types.CellType, depth: int) -> types.CellType:
        """A variable of a closure; functions that share it share its other one."""
        if id(cell) in self._made:
            found: types.CellType = self._made[id(cell)]
            return found
        try:
            held = cell.cell_contents
        except ValueError:  # not yet bound
            return cell
        other = self.rebound(held, depth - 1)
        if other is held:
            return cell
        self._kept.append(cell)
        self._made[id(cell)] = types.CellType(other)
        return self._cell(cell, depth)


def _names_in(code: types.CodeType) -> frozenset[str]:
    """The names that a function, and those written inside of it, may ask its globals for."""
    inside = (_names_in(part) for part in code.co_consts if isinstance(part, types.CodeType))
    return frozenset(code.co_names).union(*inside)


def _shared(model: nn.Module, *, tensors: bool) -> dict[int, Any]:
    """The beginning of a deep copy: hooks are no part of it, for what they hold may be the caller's; see `_copied`."""
    memo: dict[int, Any] = {}
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
            if tensors and type(tensor) is nn.Parameter and id(tensor) not in memo:
                memo[id(tensor)] = nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad)
        for tensor in own.get("_buffers", {}).values():
            # What a batch norm counts in is no view of anything, which a deep copy would have to find out.
            if type(module) in _BATCH_NORMS and type(tensor) is Tensor and not tensor.requires_grad:
                memo[id(tensor)] = tensor.clone()
    return memo


_BATCH_NORMS = frozenset((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))


def _prepare(value: Any, memo: dict[int, Any], seen: set[int], depth: int) -> None:
    """Enter into the memo what a deep copy would stumble over."""
    if id(value) in memo or id(value) in seen or depth < 0:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        if not value.is_leaf:
            memo[id(value)] = value.detach().clone()
        return
    parts: list[Any] = []
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        parts = list(value)
    elif isinstance(value, nn.Module) or callable(value) or isinstance(value, str | int | float | bool | type(None)):
        return
    else:
        parts = list(getattr(value, "__dict__", {}).values())
    for part in parts:
        _prepare(part, memo, seen, depth - 1)
    if not isinstance(value, dict | list | tuple | set | frozenset):
        try:
            copy.deepcopy(value, dict(memo))
        except Exception:
            memo[id(value)] = value
