"""What functions, hooks and weak references hold of a model, as its copy's: a deep copy leaves all of these alone."""

from __future__ import annotations

import copy
import functools
import types
import weakref
from typing import Any

from torch import Tensor, nn

from xaicli.heads.attributes import attributes
from xaicli.heads.evaluation import names_in

PLAIN = frozenset((bool, int, float, complex, str, bytes, type(None), type, types.ModuleType, types.CodeType))
PROXIES = (weakref.ProxyType, weakref.CallableProxyType)
_DEEP = 6
"""How far below a module's attributes, and in a hook, functions are looked for that hold what is the model's."""
_MOST = 10_000
"""A longer list or dictionary is a caller's data: nothing of the model is looked for in it."""


def is_torchs(thing: Any) -> bool:
    """Whether a hook, a function or a class is torch's own."""
    made = getattr(thing, "__module__", None) or type(thing).__module__
    return str(made).partition(".")[0] == "torch"


class OfModel:
    """What of a function is a model's own, as the copy's: `copy.deepcopy` leaves functions and all they hold alone.

    Args:
        memo: Of the deep copy: {id of what is the model's: what is the copy's}.
    """

    def __init__(self, memo: dict[int, Any]) -> None:
        self._made: dict[int, Any] = memo
        self._own = {id(made) for key, made in memo.items() if key != id(made)}
        self._kept: list[Any] = []
        self._others: dict[int, int] = {}
        """{id of what holds nothing of the model: how deep that was looked}."""

    def rebound(self, value: Any, depth: int = _DEEP) -> Any:
        """The value, or one made anew where something of the model is in it; what else it holds stays the caller's."""
        if id(value) in self._made:
            return self._made[id(value)]
        if depth < self._others.get(id(value), 0) or type(value) in PLAIN:
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
        if type(value) in PROXIES:
            held = value.__init__.__self__
            made = value if (other := self.rebound(held, depth - 1)) is held else weakref.proxy(other)
        elif isinstance(value, types.FunctionType):
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
            made = self._container(value, depth)
        elif not isinstance(value, nn.Module | Tensor | type) and type(own := attributes(value)) is dict:
            others = self.rebound(own, depth - 1)
            try:
                made = value if others is own else copy.copy(value)
                attributes(made).update(others)
            except Exception:  # whatever another's class raises: it stays the caller's
                made = value
        return made

    def _container(self, value: Any, depth: int) -> Any:
        made, kind = value, type(value)
        if kind in (list, tuple, set, frozenset) and len(value) <= _MOST:
            items = [self.rebound(part, depth - 1) for part in value]
            if any(one is not other for one, other in zip(items, value, strict=True)):
                made = kind(items)
        elif kind is dict and len(value) <= _MOST:
            pairs = [(self.rebound(k, depth - 1), self.rebound(v, depth - 1)) for k, v in value.items()]
            if any(k is not a or v is not b for (k, v), (a, b) in zip(pairs, value.items(), strict=True)):
                made = dict(pairs)
        elif id(value) in self._own and isinstance(value, dict | list):  # of a class of its own: as it is
            put: Any = dict.__setitem__ if isinstance(value, dict) else list.__setitem__
            held: Any = dict.items(value) if isinstance(value, dict) else enumerate(list.__iter__(value))
            for key, part in parts if len(parts := list(held)) <= _MOST else ():
                if (other := self.rebound(part, depth - 1)) is not part:
                    put(value, key, other)
        return made

    def _function(self, value: types.FunctionType, depth: int) -> types.FunctionType:
        around, names = value.__globals__, names_in(value.__code__) if not is_torchs(value) else ()
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
