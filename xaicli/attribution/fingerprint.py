"""A hash of what a model answers by: its weights, its code, and the values that this code reaches.

Python's own modules, torch and numpy are told by their names, other installed packages by the files that their classes
and functions stand in. Of the user's modules everything is followed that the code asks for by name: functions, classes,
tables of them, numbers, settings.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import io
import logging
import pickle
import re
import sys
import threading
import types
import weakref
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from xaicli.heads.attributes import held
from xaicli.heads.evaluation import names_in

_PLAIN = frozenset((str, bytes, int, float, bool, complex, type(None), torch.dtype, torch.device, torch.Size))
_WEAK = (weakref.WeakSet, weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
_IDLE = (logging.Logger, logging.Handler, threading.Thread, io.IOBase, *_WEAK)
"""What changes by itself and decides no answer."""
_OF_TORCH = frozenset(vars(nn.Module()))
_OF_PROCESS = frozenset(("_autograd_function_id", "_abc_impl", "_original_object_hash"))
"""What Python, torch and transformers write into classes and objects that is another in every process."""
_LOADED = frozenset(("LOAD_GLOBAL", "LOAD_NAME"))
_LIBRARIES = frozenset(("torch", "numpy", "builtins", "xaicli"))
_ALL = frozenset(("getattr", "vars", "__dict__", "globals", "eval", "exec"))
"""Code with one of these asks for names that do not stand in it."""
_MOST = 300_000
"""So many things are looked into; a list of plain values is one."""
_ADDRESS = re.compile("0x[0-9a-f]", re.IGNORECASE)


def fingerprint(model: nn.Module) -> tuple[str, str]:
    """A hash of a model, equal in every process, and what of the model it does not tell ("" for nothing).

    Args:
        model: Any module; its structure, its code and the functions that calls, the values these read, its settings,
            and every weight are told.
    """
    found = _Fingerprint()
    with found.untold_where_it_fails(model):
        for name, tensor in model.state_dict().items():
            if isinstance(tensor, Tensor):
                found.say(name)
                found.take(tensor)
        found.say("" if isinstance(model, fx.GraphModule) else str(model))
    found.take(model)
    return found.finished()


class _Fingerprint:
    """A walk over all that is reached, each thing once and in an order that is the same in every process."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256(torch.__version__.encode())
        self._found: list[Any] = []
        self._numbers: dict[Any, int] = {}
        self._files: set[str] = set()
        self._untold = ""

    def finished(self) -> tuple[str, str]:
        """The hash, once everything is looked into, and what could not be told."""
        for value in self._found:  # which grows meanwhile
            if len(self._found) > _MOST:
                self._untold = self._untold or f"more than {_MOST:,} values"
                break
            with self.untold_where_it_fails(value):
                self.say(_named(type(value)))
                self._look_into(value)
        return self._digest.hexdigest(), self._untold

    @contextlib.contextmanager
    def untold_where_it_fails(self, value: Any) -> Iterator[None]:
        """Something whose own code raises when it is looked into is what is not told."""
        try:
            yield
        except Exception as error:  # whatever another's class raises
            self._untold = self._untold or f"what a {_named(type(value))} holds, {type(error).__name__}: {error}"

    def say(self, text: str) -> None:
        """A text as it is."""
        self._digest.update(text.encode(errors="surrogatepass") + b"\0")

    def take(self, value: Any) -> None:
        """A plain value by itself, anything else by when it was found first."""
        if type(value) in _PLAIN:
            self.say(repr(value))
            return
        number = self._numbers.setdefault(_identity(value), len(self._found))
        if number == len(self._found):
            self._found.append(value)  # which also keeps it: nothing else gets its id
        self.say(f"#{number}")

    def _all(self, values: Iterable[Any]) -> None:
        for value in values:
            self.take(value)
        self.say("end")

    def _named_values(self, values: Iterable[tuple[str, Any]]) -> None:
        for name, value in values:
            self.say(name)
            self.take(value)
        self.say("end")

    def _look_into(self, value: Any) -> None:
        if isinstance(value, nn.Module):
            self._module(value)
        elif isinstance(value, Tensor | np.ndarray):
            self._array(value)
        elif isinstance(value, dict | types.MappingProxyType | list | tuple | deque | set | frozenset):
            self._container(value)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.ModuleType):
            self.say(value.__name__)
            self._of_module(value, _ALL)
        elif isinstance(value, torch.jit.ScriptFunction):
            self.say(str(value.inlined_graph))
        elif (parts := _parts(value)) is not None:
            self.say(_named(value))
            self._all(parts)
        elif not isinstance(value, _IDLE):
            self._object(value)

    def _array(self, value: Tensor | npt.NDArray[Any]) -> None:
        self.say(f"{value.dtype}{tuple(value.shape)}")
        if isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                self._all(value.ravel().tolist())
            else:
                self._digest.update(np.ascontiguousarray(value).tobytes())
        elif value.layout is not torch.strided or value.is_quantized:
            buffer = io.BytesIO()
            torch.save(value.detach().cpu(), buffer)
            self._digest.update(buffer.getvalue())
        elif value.numel() and not value.is_meta:
            data = value.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
            self._digest.update(data.view(torch.uint8).numpy().data)

    def _container(self, value: Any) -> None:
        if isinstance(value, dict | types.MappingProxyType):
            kind: Any = type(value)
            parts = [part for pair in kind.items(value) for part in pair]
        elif isinstance(value, set | frozenset):
            parts = sorted(value, key=self._order)
            if len({self._order(part) for part in parts}) < len(parts):
                self._untold = self._untold or f"the order of a set of {_named(type(parts[0]))}"
        else:
            parts = list(value)
        if all(type(part) in _PLAIN for part in parts):
            self.say(repr(parts))
        else:
            self._all(parts)

        if type(value).__module__ != "builtins":
            self._all([type(value), value.default_factory if isinstance(value, defaultdict) else None])
            self._named_values(_attributes(value))

    def _order(self, member: Any) -> tuple[str, int]:
        """By what the members of a set stand in the same order in every process."""
        plain = type(member) in _PLAIN or isinstance(member, Enum)
        return repr(member) if plain else _named(member), self._numbers.get(_identity(member), -1)

    def _object(self, value: Any) -> None:
        kind = type(value)
        attributes = list(_attributes(value))
        self.take(kind)
        self._named_values(attributes)
        if isinstance(value, re.Pattern):
            self._all([value.pattern, value.flags])
        elif isinstance(value, str | bytes | int | float | complex | np.generic):
            self.say(repr(value))
        elif attributes or held(value, "__dict__") is not None:
            return
        elif kind.__module__.partition(".")[0] in sys.stdlib_module_names | _LIBRARIES:
            said = repr(value)
            self.say("" if _ADDRESS.search(said) else said)
        else:
            try:
                self._digest.update(pickle.dumps(value, protocol=4))
            except Exception:  # whatever another's class raises
                self._untold = self._untold or f"what a {_named(kind)} holds"

    def _module(self, module: nn.Module) -> None:
        self.take(type(module))
        own = vars(module)
        asked: Collection[str] = ()
        if isinstance(module, torch.jit.ScriptModule):
            self.say(str(module.inlined_graph) if hasattr(module, "forward") else "")
        elif isinstance(module, fx.GraphModule):
            self.say(module.code)
            self._all(n.target for n in module.graph.nodes if isinstance(n.target, types.FunctionType))
        else:
            asked = _names_of([base for base in type(module).__mro__ if self._is_users(base)])
            for kept in ("_modules", "_parameters", "_buffers", "_forward_pre_hooks", "_forward_hooks"):
                hooks = kept.endswith("hooks")
                self._named_values(("" if hooks else name, part) for name, part in own.get(kept, {}).items())
        for name, value in sorted(own.items()):
            if name in _OF_TORCH or (name == "meta" and isinstance(module, fx.GraphModule)):
                continue
            if not name.startswith("_") or name in asked or isinstance(value, Tensor):
                self.say(name)
                self.take(value)

    def _class(self, kind: type) -> None:
        self.say(_named(kind))
        if not self._is_users(kind):
            return
        self._all(kind.__mro__[1:])
        for name, part in sorted(vars(kind).items()):
            is_code = isinstance(_function_in(part), types.FunctionType)
            if name not in _OF_PROCESS and (not name.startswith("__") or name == "__slots__" or is_code):
                self.say(name)
                self.take(part)

    def _function(self, function: types.FunctionType) -> None:
        self.say(_named(function))
        code, around = function.__code__, function.__globals__
        if (compiled := vars(function).get("_torchdynamo_orig_callable")) is not None:
            self.take(compiled)
            return
        self._named_values(vars(function).items())
        self._all(_contents(function))
        if not self._is_users(function):
            return
        self._code(code)
        self._all([function.__defaults__, function.__kwdefaults__])
        names = names_in(code)
        for name in sorted(_loaded_by(code)):
            used = around.get(name)
            if isinstance(used, types.ModuleType):
                self._of_module(used, names)
            elif name in around:
                self.say(name)
                self.take(used)
        for module in _imported_by(code, around):
            self._of_module(module, names)

    def _of_module(self, module: types.ModuleType, names: frozenset[str]) -> None:
        """What code takes of a module that it names: what the module calls by one of the code's own names."""
        if not self._is_users(module):
            return
        for name, part in sorted(vars(module).items()):
            if name.startswith("__") or not (name in names or names & _ALL):
                continue
            if not isinstance(part, types.ModuleType):
                self.say(name)
                self.take(part)
            elif name in names and part is not module:
                self._of_module(part, names - {name})

    def _is_users(self, thing: Any) -> bool:
        """Whether what something does is followed; an installed package's files are told instead, a library's name."""
        made = held(thing, "__name__" if isinstance(thing, types.ModuleType) else "__module__")
        root = str(made or "builtins").partition(".")[0]
        if root == "__main__":
            return True
        if root in sys.stdlib_module_names or root in _LIBRARIES:
            return False
        if _is_installed(root):
            self._file(str(made), root)
            return False
        return True

    def _file(self, name: str, package: str) -> None:
        """The file of an installed module, and those of the package's that it has functions and classes from."""
        module = sys.modules.get(name)
        path = held(module, "__file__")
        if module is None or path is None or name in self._files:
            return
        self._files.add(name)
        with contextlib.suppress(OSError), Path(path).open("rb") as file:
            self._digest.update(hashlib.file_digest(file, "sha256").digest())
        used = [part for part in vars(module).values() if isinstance(part, types.FunctionType | type)]
        for other in sorted({str(part.__module__) for part in used}):
            if other.partition(".")[0] == package:
                self._file(other, package)

    def _code(self, code: types.CodeType) -> None:
        self._digest.update(code.co_code)
        self.say(repr(code.co_names))
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant)
            else:
                self.say(repr(sorted(constant, key=repr)) if isinstance(constant, frozenset) else repr(constant))


def _identity(value: Any) -> Any:
    """What makes two values one: a tensor is what lies in its memory, however often it is taken out of its module."""
    if type(value) in (Tensor, nn.Parameter) and value.layout is torch.strided and not value.is_meta and value.numel():
        return value.data_ptr(), value.dtype, tuple(value.shape), value.stride(), value.device
    return id(value)


def _parts(value: Any) -> list[Any] | None:
    """What something is made of that only leads to other things; None for any other."""
    if isinstance(value, types.BuiltinFunctionType | types.MethodType | types.MethodWrapperType):
        owner = held(value, "__self__")
        return [held(value, "__func__"), None if isinstance(owner, types.ModuleType) else owner]
    if isinstance(value, property):
        return [value.fget]
    if isinstance(value, staticmethod | classmethod):
        return [value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords, vars(value)]
    return [value()] if isinstance(value, weakref.ref) else None


def _named(thing: Any) -> str:
    kind = type(thing)
    module, name = held(thing, "__module__"), held(thing, "__qualname__")
    return f"{kind.__module__ if module is None else module}.{kind.__qualname__ if name is None else name}"


def _function_in(part: Any) -> Any:
    """The function that a part of a class holds, a method's or a property's; else the part itself."""
    return held(part, "__func__", held(part, "fget", part))


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """The attributes of an object, those in slots included."""
    own: Any = held(value, "__dict__", object())
    if isinstance(own, Mapping):
        yield from ((str(name), part) for name, part in type(own).items(own) if name not in _OF_PROCESS)
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if isinstance(name, str) and not name.startswith("__") and (part := held(value, name, own)) is not own:
                yield name, part


def _contents(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):
            yield cell.cell_contents


def _inside(code: types.CodeType) -> list[types.CodeType]:
    return [part for part in code.co_consts if isinstance(part, types.CodeType)]


@functools.lru_cache(maxsize=4096)
def _loaded_by(code: types.CodeType) -> frozenset[str]:
    """The names that a function, and those written inside of it, asks its globals for."""
    loaded = frozenset(step.argval for step in dis.get_instructions(code) if step.opname in _LOADED)
    return loaded.union(*(_loaded_by(part) for part in _inside(code)))


def _imported_by(code: types.CodeType, around: Mapping[str, Any]) -> Iterator[types.ModuleType]:
    """The modules that a function itself imports, as far as they are loaded."""
    package = str(around.get("__package__") or "")
    for part in (code, *_inside(code)):
        for step in dis.get_instructions(part) if part is code else ():
            if step.opname == "IMPORT_NAME":
                ends = [package.rsplit(".", up)[0] for up in range(package.count(".") + 1)] if package else []
                names = (step.argval, *(f"{end}.{step.argval}".rstrip(".") for end in ends))
                yield from (module for name in names if (module := sys.modules.get(name)) is not None)
        if part is not code:
            yield from _imported_by(part, around)


def _names_of(kinds: Sequence[type]) -> frozenset[str]:
    """All names in the code of some classes."""
    parts = [_function_in(part) for base in kinds for part in vars(base).values()]
    return frozenset().union(*(names_in(part.__code__) for part in parts if isinstance(part, types.FunctionType)))


@functools.lru_cache(maxsize=1024)
def _is_installed(root: str) -> bool:
    """Whether a package lies where packages are installed; one that is edited in place does not."""
    module = sys.modules.get(root)
    places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
    return any(not {"site-packages", "dist-packages"}.isdisjoint(Path(place).parts) for place in places)
