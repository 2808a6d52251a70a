"""Pickles read as data: their instructions are followed here, and nothing that they name is imported or called.

Containers, numbers, texts and a few plain classes of Python are built; what torch and numpy write is built by
`tensors.py`. Every other object becomes an `Inert`, which remembers what it was made of. A pickle that calls what only
code from elsewhere would (`os.system`) is refused.
"""

from __future__ import annotations

import _compat_pickle
import argparse
import datetime
import pathlib
import pickletools
import sys
import warnings
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, runtime_checkable

_MOST_IN_A_KEY = 64
_LONGEST_LINE = 64 * 2**20


class PickleError(Exception):
    """A pickle whose instructions make no sense: it is damaged, or no pickle."""


class CallsCodeError(Exception):
    """A pickle that calls what no saved value needs; the text names it."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names; nothing is imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False)
class Inert:
    """What stands in the place of an object that is not built.

    Attributes:
        name: Its class, or the function whose result it is.
        arguments: What it was made with.
        state: What it was given afterwards; its attributes, mostly.
        items: What was appended to it.
        entries: What was set in it by key.
    """

    name: Name
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Its attributes, as far as its state is a dict of them (alone, or before a dict of slots)."""
        parts = self.state if isinstance(self.state, tuple) and len(self.state) == 2 else (self.state,)
        return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}


@runtime_checkable
class Restorable(Protocol):
    """A value in the making that takes its state afterwards."""

    def restore(self, state: Any) -> None:
        """Take the state."""


Builder = Callable[..., Any]


class PickleReader:
    """Reads pickles from a file.

    Args:
        file: Where to read; left behind the pickle's end.
        builders: What builds the values of further classes and functions, by their names; an error of theirs makes
            the value an `Inert`.
        persistent: What gives the object of a persistent id.

    Attributes:
        unknown: How many objects of each class or function were not built.
    """

    def __init__(
        self, file: IO[bytes], builders: Mapping[str, Builder], persistent: Callable[[Any], Any] | None = None
    ) -> None:
        self.unknown: Counter[str] = Counter()
        self._file = file
        self._persistent = persistent
        own: dict[str, Builder] = {
            "builtins.getattr": self._attribute,
            "copyreg._reconstructor": self._reconstructed,
            "copyreg.__newobj__": self._made,
        }
        self._builders = {**_PLAIN, **builders, **own}
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        """The value of the next pickle.

        Raises:
            PickleError: It is damaged.
            CallsCodeError: It calls what no saved value needs.
        """
        self._stack, self._marks, self._memo = [], [], {}
        try:
            with warnings.catch_warnings():
                # No pickle writes an escape that Python does not know; Python takes it, with this word to programmers.
                warnings.filterwarnings("error", message="invalid escape sequence", category=DeprecationWarning)
                for opcode, argument, _ in pickletools.genops(self._file):
                    if opcode.name == "STOP":
                        return self._stack.pop()
                    self._follow(opcode.name, argument)
        except DeprecationWarning as error:
            raise PickleError(str(error)) from error
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, EOFError) as error:
            raise PickleError(f"{type(error).__name__}: {error}") from error
        raise PickleError("it does not end")

    def made(self, function: object, arguments: object, named: Mapping[str, Any] | None = None) -> Any:
        """What a call in a pickle gives: a value, or what stands in its place.

        Raises:
            CallsCodeError: It is no call that a saved value needs.
        """
        if isinstance(function, Inert) and not _is_pythons(function.name):
            return self.inert(function.name, (function, arguments))  # a function that its package would have made
        if not isinstance(function, Name):
            called = function.name if isinstance(function, Inert) else type(function).__name__
            raise CallsCodeError(f"what {called} gives")
        given = tuple(arguments) if isinstance(arguments, tuple | list) else ()
        if builder := self._builders.get(str(function)):
            try:
                return builder(*given, **(named or {}))
            except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError):
                pass  # of a form that is not known: it stays inert
        elif runs_code(function):
            raise CallsCodeError(str(function))
        return self.inert(function, given)

    def inert(self, name: Name, arguments: tuple[Any, ...] = ()) -> Inert:
        """Count an object that is not built, and stand in for it."""
        self.unknown[str(name)] += 1
        return Inert(name, arguments)

    def _follow(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        match opcode:
            case _ if opcode in _LITERALS:
                stack.append(argument)
            case "BINGET" | "GET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "BINPUT" | "PUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode])
            case "MARK":
                self._marks.append(stack)
                self._stack = []
            case "POP_MARK":
                self._to_mark()
            case "POP":
                stack.pop() if stack else self._to_mark()
            case "DUP":
                stack.append(stack[-1])
            case "PROTO" | "FRAME":
                pass
            case _ if opcode in _CONTAINERS:
                self._contain(opcode)
            case _:
                self._object(opcode, argument)

    def _contain(self, opcode: str) -> None:
        match opcode:
            case "EMPTY_LIST" | "EMPTY_TUPLE" | "EMPTY_DICT" | "EMPTY_SET":
                self._stack.append({"LIST": list, "TUPLE": tuple, "DICT": dict, "SET": set}[opcode[6:]]())
            case "LIST":
                self._push(list(self._to_mark()))
            case "TUPLE":
                self._push(tuple(self._to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(opcode[-1])
                parts = tuple(self._pop() for _ in range(n))
                self._push(parts[::-1])
            case "DICT":
                made: dict[Any, Any] = {}
                _set(made, self._to_mark())
                self._push(made)
            case "FROZENSET":
                self._push(frozenset(_key(item) for item in self._to_mark()))
            case "APPEND":
                item = self._pop()
                _append(self._stack[-1], [item])
            case "APPENDS" | "ADDITEMS":
                items = self._to_mark()
                _append(self._stack[-1], items)
            case "SETITEM":
                value, key = self._pop(), self._pop()
                _set(self._stack[-1], [key, value])
            case "SETITEMS":
                items = self._to_mark()
                _set(self._stack[-1], items)

    def _object(self, opcode: str, argument: Any) -> None:
        match opcode:
            case "GLOBAL":
                self._push(_name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = self._pop(), self._pop()
                self._push(_name(module, name))
            case "REDUCE" | "NEWOBJ":
                arguments, function = self._pop(), self._pop()
                self._push(self.made(function, arguments))
            case "NEWOBJ_EX":
                named, arguments, function = self._pop(), self._pop(), self._pop()
                self._push(self.made(function, arguments, named if isinstance(named, dict) else None))
            case "INST":
                self._push(self.made(_name(*argument.split(" ", 1)), self._to_mark()))
            case "OBJ":
                function, *arguments = self._to_mark()
                self._push(self.made(function, arguments))
            case "BUILD":
                state = self._pop()
                _restore(self._stack[-1], state)
            case "PERSID" | "BINPERSID":
                if self._persistent is None:
                    raise ValueError("an object kept elsewhere")
                self._push(self._persistent(self._pop() if opcode == "BINPERSID" else argument))
            case "EXT1" | "EXT2" | "EXT4":
                self._push(Name("copyreg", f"extension_{argument}"))
            case _:
                raise ValueError(f"an instruction that no file needs ({opcode})")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        return self._stack.pop()

    def _to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _attribute(self, owner: Any, name: Any) -> Any:
        """A class inside a class is pickled as its attribute."""
        if isinstance(owner, Name) and isinstance(name, str):
            return Name(owner.module, f"{owner.name}.{name}")
        return self.inert(Name("builtins", "getattr"), (owner, name))

    def _reconstructed(self, kind: Any, base: Any, state: Any) -> Any:
        made = self.made(kind, ())
        if isinstance(made, Inert) and isinstance(state, dict):
            made.entries = state
        elif isinstance(made, Inert) and isinstance(state, list):
            made.items = state
        elif isinstance(made, Inert):
            made.arguments = (base, state)
        return made

    def _made(self, kind: Any, *arguments: Any) -> Any:
        return self.made(kind, arguments)


class BoundedFile:
    """A file whose reads are no longer than the file: a size in a damaged pickle allocates nothing."""

    def __init__(self, file: IO[bytes], n_bytes: int) -> None:
        self._file = file
        self._n_bytes = n_bytes

    def read(self, n: int) -> bytes:
        """As a file's."""
        return self._file.read(max(0, min(n, self._n_bytes - self._file.tell())))

    def readline(self) -> bytes:
        """As a file's."""
        return self._file.readline(_LONGEST_LINE)

    def tell(self) -> int:
        """As a file's."""
        return self._file.tell()


def _name(module: object, name: object) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("a class without a name")
    # Old protocols have the names of Python 2, as pickle itself writes and reads them.
    module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
    return Name(_compat_pickle.IMPORT_MAPPING.get(module, module), name)


def _key(value: Any) -> Any:
    """A value that can be a key without surprises: hashing nested tuples can take for ever."""
    left = _MOST_IN_A_KEY
    waiting = [value]
    while waiting:
        left -= 1
        part = waiting.pop()
        if left < 0 or isinstance(part, list | dict | set | bytearray | deque):
            raise ValueError("a key that is no plain value")
        if isinstance(part, tuple | frozenset):
            waiting += part
    return value


def _append(target: Any, items: list[Any]) -> None:
    if isinstance(target, set):
        target.update(_key(item) for item in items)
    elif isinstance(target, list | deque):
        target.extend(items)
    elif isinstance(target, Inert):
        target.items.extend(items)
    else:
        raise ValueError(f"items for a {type(target).__name__}")


def _set(target: Any, items: list[Any]) -> None:
    entries = target.entries if isinstance(target, Inert) else target
    if not isinstance(entries, dict) or len(items) % 2:
        raise ValueError(f"entries for a {type(target).__name__}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        entries[_key(key)] = value


def _restore(target: Any, state: Any) -> None:
    if isinstance(target, Inert):
        target.state = state
    elif isinstance(target, Restorable):
        target.restore(state)
    elif isinstance(target, argparse.Namespace) and isinstance(state, dict):
        vars(target).update({key: value for key, value in state.items() if isinstance(key, str)})
    elif isinstance(target, OrderedDict) and isinstance(state, dict):
        # Versions of a state dict's modules; no other attribute of a dict is a value.
        vars(target).update({key: value for key, value in state.items() if key == "_metadata"})


def _ordered(*given: Any) -> OrderedDict[Any, Any]:
    made: OrderedDict[Any, Any] = OrderedDict()
    pairs = given[0].items() if given and isinstance(given[0], dict) else given[0] if given else ()
    for key, value in pairs:
        made[_key(key)] = value
    return made


def _mapping(*given: Any) -> dict[Any, Any]:
    """The contents of a `dict`, a `Counter` or a `defaultdict`, whose factory is left out."""
    contents = [part for part in given if isinstance(part, dict | list)]
    return dict(_ordered(*contents))


def _byte_string(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("no bytes")
    return text.encode("latin1")


def _path(kind: type[pathlib.PurePath]) -> Builder:
    def build(*parts: str) -> pathlib.PurePath:
        return kind(*parts)

    return build


def _set_of(kind: type[Any]) -> Builder:
    return lambda items=(): kind(_key(item) for item in items)


_PLAIN: dict[str, Builder] = {
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": _mapping,
    "collections.Counter": _mapping,
    "builtins.dict": _mapping,
    "collections.deque": lambda items=(), _=None: deque(items),
    "builtins.list": lambda items=(): list(items),
    "builtins.tuple": lambda items=(): tuple(items),
    "builtins.set": _set_of(set),
    "builtins.frozenset": _set_of(frozenset),
    "builtins.complex": lambda real, imaginary=0.0: complex(float(real), float(imaginary)),
    "builtins.bytearray": lambda *given: bytearray(
        given[0] if given and isinstance(given[0], bytes) else _byte_string(*given) if given else b""
    ),
    "builtins.bytes": lambda: b"",
    "_codecs.encode": _byte_string,
    "argparse.Namespace": argparse.Namespace,
    "datetime.datetime": datetime.datetime,
    "datetime.date": datetime.date,
    "datetime.time": datetime.time,
    "datetime.timedelta": datetime.timedelta,
    "datetime.timezone": datetime.timezone,
    **{f"{module}.{kind}": _path(pathlib.PurePosixPath) for module in ("pathlib", "pathlib._local")
       for kind in ("PosixPath", "PurePosixPath", "Path", "PurePath")},
    **{f"{module}.{kind}": _path(pathlib.PureWindowsPath) for module in ("pathlib", "pathlib._local")
       for kind in ("WindowsPath", "PureWindowsPath")},
}  # fmt: skip

_LITERALS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "BYTEARRAY8"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
    | {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
)
_CONTAINERS = frozenset(
    {"EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_DICT", "EMPTY_SET", "LIST", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "DICT"}
    | {"FROZENSET", "APPEND", "APPENDS", "ADDITEMS", "SETITEM", "SETITEMS"}
)

_REACHING_OUT = frozenset(
    {"os", "posix", "nt", "subprocess", "_posixsubprocess", "ctypes", "_ctypes", "socket", "_socket", "_io", "io"}
    | {"runpy", "importlib", "_frozen_importlib", "_frozen_importlib_external", "code", "pty", "webbrowser", "urllib"}
    | {"http", "pickle", "_pickle", "multiprocessing"}
)
"""Modules of Python of which nothing is called when a value is restored, classes included."""
_VALUES_OF = frozenset(
    {"collections", "_collections", "_collections_abc", "copyreg", "functools", "_functools", "itertools", "operator"}
    | {"_operator", "datetime", "_datetime", "decimal", "_decimal", "fractions", "uuid", "random", "_random", "re"}
    | {"logging", "enum", "types", "typing", "weakref", "_weakref", "array", "time", "zoneinfo", "string", "inspect"}
    | {"abc", "dataclasses", "contextlib", "ipaddress", "codecs", "_codecs", "threading", "_thread", "queue"}
)
"""Modules of Python whose functions and lower-case classes restore values."""
_BUILTIN_VALUES = frozenset(
    {"object", "int", "float", "str", "bool", "bytes", "range", "slice", "iter", "enumerate", "zip", "map", "filter"}
    | {"reversed", "property", "staticmethod", "classmethod", "memoryview", "super", "type"}
)
_BUFFERS = frozenset({"io.BytesIO", "io.StringIO", "_io.BytesIO", "_io.StringIO"})


def runs_code(called: Name) -> bool:
    """Whether a call is one of Python's own functions, which no saved value needs and whose harm is known."""
    top = called.module.split(".")[0]
    if top in _REACHING_OUT:
        return str(called) not in _BUFFERS
    if not _is_pythons(called) or top in _VALUES_OF:
        return False
    if top == "builtins":
        harmless = called.name in _BUILTIN_VALUES or called.name[:1].isupper()
        return not harmless and f"builtins.{called.name}" not in _PLAIN
    return called.name.split(".")[-1].lstrip("_")[:1].islower()


def _is_pythons(name: Name) -> bool:
    return name.module.split(".")[0] in sys.stdlib_module_names
