"""What `torch.save` wrote, in each of its forms, and plain pickles: read without running any of it."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from xaicli.checkpoint.archive import Archive, Place, convert_hint, damaged, refused
from xaicli.checkpoint.files import Opened, part_of_zero, shards
from xaicli.checkpoint.pickles import BoundedFile, CallsCodeError, Name, PickleError, PickleReader
from xaicli.checkpoint.tensors import Storage, StoredTensor, TensorBuilders, TooLargeError, storage_dtype
from xaicli.errors import XaiError

if TYPE_CHECKING:
    from torch import nn

_MAGIC = 0x1950A86A20F9469CFC6C
_LARGEST_PICKLE = 2 * 2**30
_DEEPEST = 3
"""How many files a file may hold inside one another: `pickle.dump` writes each tensor as a file of torch's."""


@dataclass(frozen=True)
class TorchContent:
    """What a file holds.

    Attributes:
        value: Its content; tensors as `StoredTensor`, objects that were not built as `Inert`.
        unknown: How many objects of each class were not built.
        why: Of a file whose code was run, why each of these classes was not there.
    """

    value: Any
    unknown: Counter[str]
    why: Mapping[str, str] = field(default_factory=dict)


def read_torch(path: Path, opened: Opened | None = None) -> TorchContent:
    """The content of what `torch.save` or `pickle.dump` wrote; nothing that it names is imported or called.

    Of several files with their index it is what they hold together. Values of tensors are read, and compared with
    their checksums, when they are wanted.

    Args:
        path: The file, an index, or a folder with one.
        opened: The file, where it was looked into before.

    Raises:
        RefusedError: It calls what only code from elsewhere would, or holds a tensor larger than its storage.
        DamagedFileError: It is not complete.
        XaiError: A file that its index names is missing, or it is one rank's part of a checkpoint.
    """
    if path.is_dir() or path.suffix == ".json":
        return _read_shards(path)
    content = _read_file(opened or Opened(path))
    if _is_part_of_zero(content.value):
        raise part_of_zero(path)
    return content


def _is_part_of_zero(content: object) -> bool:
    """Whether DeepSpeed's ZeRO 3 has left empty what stands in parts elsewhere; 1 and 2 keep all weights here."""
    weights = content.get("module") if isinstance(content, Mapping) and "param_shapes" in content else None
    values = weights.values() if isinstance(weights, Mapping) else ()
    return any(isinstance(value, StoredTensor) and tuple(value.shape) == (0,) for value in values)


def _read_file(opened: Opened) -> TorchContent:
    path, head = opened.path, opened.from_start().read(512)
    try:
        if head.startswith(b"PK"):
            return _read_zip(Archive(opened.file, path), opened)
        if not head.startswith(b"\x80") and tarfile.is_tarfile(opened.from_start()):
            return _read_tar(opened)
        return _read_stream(opened.from_start(), path.stat().st_size, partial(_part_of_file, opened), 0)
    except CallsCodeError as error:
        raise refused(path, f"a pickle that runs code when it is read: {error}", hint=convert_hint(path)) from error
    except TooLargeError as error:
        raise refused(path, f"a tensor larger than its storage ({error})") from error
    except (PickleError, OSError, struct.error, tarfile.TarError, EOFError) as error:
        raise damaged(path, str(error)) from error


def _read_shards(path: Path) -> TorchContent:
    together: dict[str, Any] = {}
    unknown: Counter[str] = Counter()
    for part in shards(path):
        content = read_torch(part)
        if not isinstance(content.value, Mapping):
            raise damaged(part, "it holds no weights by name, as a part of a checkpoint does")
        together |= content.value
        unknown += content.unknown
    return TorchContent(together, unknown)


def _read_zip(archive: Archive, opened: Opened) -> TorchContent:
    path = opened.path
    member = archive.members["data.pkl"]
    if member.size > _LARGEST_PICKLE:
        raise refused(path, f"a description of {member.size:,} bytes (data.pkl)")
    data = archive.read("data.pkl")
    order = archive.read("byteorder").decode("ascii", "replace") if "byteorder" in archive.members else "little"
    places = {name: archive.place(name) for name in archive.members if name.startswith("data/")}
    storages: dict[str, Storage] = {}

    def persistent(saved: Any) -> Any:
        kind, key, _, n_elements = _storage_id(saved)[:4]
        if key not in storages:
            dtype, name = storage_dtype(kind), f"data/{key}"
            n_bytes = int(n_elements) * dtype.itemsize
            if name not in places:
                raise PickleError(f"it has no {name}")
            if not 0 <= n_bytes <= places[name].size:
                raise TooLargeError(f"{name}: {n_bytes:,} of {places[name].size:,} bytes")
            swap = 1 if order == sys.byteorder else dtype.itemsize // (2 if dtype.is_complex else 1)
            storages[key] = Storage(dtype, n_bytes, partial(_stored, opened, places[name], n_bytes, swap))
        return storages[key]

    return _read(io.BytesIO(data), persistent, 0)


def _stored(opened: Opened, place: Place, n_bytes: int, swap: int) -> bytearray:
    """The bytes of a storage in an archive, in this machine's order."""
    data = place.read(opened.file, opened.path)
    del data[n_bytes:]
    if swap > 1:
        import numpy as np

        data = bytearray(np.frombuffer(data, dtype=f"u{swap}").byteswap().tobytes())
    return data


def _read_stream(file: IO[bytes], n_bytes: int, part: Callable[[int, int], bytearray], depth: int) -> TorchContent:
    """A file of pickles one after the other, storages behind them: torch's form before 1.6, or one plain pickle.

    Args:
        file: The file.
        n_bytes: Its size.
        part: Reads bytes of it, given where they begin and how many they are.
        depth: In how many other files it lies.
    """
    bounded: Any = BoundedFile(file, n_bytes)
    first = _read(bounded, None, depth)
    if first.value != _MAGIC:
        return first
    for _ in range(2):  # the version, and what machine it was
        _read(bounded, None, depth)
    storages: dict[str, Storage] = {}
    wanted: dict[str, int] = {}

    def persistent(saved: Any) -> Any:
        if isinstance(saved, tuple) and len(saved) == 4 and _text(saved[0]) == "module":
            return saved[1]  # a class, with the source it had
        kind, key, _, n_elements, *views = _storage_id(saved)
        key = str(key)
        if key not in storages:
            dtype = storage_dtype(kind)
            storages[key] = Storage(dtype, int(n_elements) * dtype.itemsize, bytearray)
            wanted[key] = int(n_elements)
        if views and views[0] is not None:
            raise PickleError("views of storages, which no torch since 0.4 writes")
        return storages[key]

    content = _read(bounded, persistent, depth)
    at = 0
    for key in _read(bounded, None, depth).value:
        storage = storages.get(str(key))
        (n_elements,) = struct.unpack("<q", bounded.read(8))
        at = bounded.tell()
        if storage is None or n_elements != wanted[str(key)]:
            raise PickleError(f"its storage {key} is not the one that its tensors look at")
        if storage.n_bytes > n_bytes - at:
            raise PickleError("it ends early")
        storage.load = partial(part, at, storage.n_bytes)
        del wanted[str(key)]
        file.seek(at + storage.n_bytes)
    if wanted:
        raise PickleError("it ends early")
    return content


def _read_tar(opened: Opened) -> TorchContent:
    """torch's form before 0.1.10: a tar of storages, tensors and the pickle that names them."""
    path = opened.path
    with tarfile.open(fileobj=opened.from_start(), mode="r:") as archive:
        members = {info.name: info for info in archive if info.isfile()}
        if not {"storages", "tensors", "pickle"} <= members.keys():
            raise XaiError(f"{path} is a tar archive, but none of torch's", hint=f"unpack it: tar xf {path}")
        parts = {}
        for name in ("storages", "tensors", "pickle"):
            member = archive.extractfile(members[name])
            parts[name] = io.BytesIO(member.read() if member else b"")
    objects: dict[Any, Any] = {}
    file = parts["storages"]
    for _ in range(_count(_read(file, None, 0).value)):
        key, _, kind = _read(file, None, 0).value
        dtype = storage_dtype(kind)
        (n_elements,) = struct.unpack("<q", file.read(8))
        data = bytearray(file.read(max(0, n_elements) * dtype.itemsize))
        if len(data) != n_elements * dtype.itemsize:
            raise PickleError("it ends early")
        objects[key] = Storage(dtype, len(data), partial(bytearray, data))
    if _read(file, None, 0).value:
        raise PickleError("views of storages, which no torch since 0.4 writes")
    file = parts["tensors"]
    for _ in range(_count(_read(file, None, 0).value)):
        key, storage_key, _ = _read(file, None, 0).value
        (n_axes, _) = struct.unpack("<ii", file.read(8))
        shape = struct.unpack(f"<{n_axes}q", file.read(8 * n_axes))
        stride = struct.unpack(f"<{n_axes}q", file.read(8 * n_axes))
        (offset,) = struct.unpack("<q", file.read(8))
        storage = objects[storage_key]
        objects[key] = StoredTensor(storage, storage.dtype, offset, shape, stride).check()
    return _read(parts["pickle"], lambda saved: saved[0] if isinstance(saved, tuple) else objects[int(saved)], 0)


def _count(value: Any) -> int:
    if not isinstance(value, int):
        raise PickleError("it has no number of parts")
    return value


def _read(file: Any, persistent: Callable[[Any], Any] | None, depth: int) -> TorchContent:
    def nested(data: bytes) -> Any:
        if depth >= _DEEPEST:
            raise PickleError("files inside files inside files")
        raw = bytes(data)
        inner = _read_stream(io.BytesIO(raw), len(raw), lambda at, n: bytearray(raw[at : at + n]), depth + 1)
        return inner.value

    builders = TensorBuilders(nested)
    reader = builders.reader = PickleReader(file, builders.by_name(), persistent)
    value = reader.read()
    return TorchContent(value, reader.unknown)


def _storage_id(saved: Any) -> tuple[Any, ...]:
    if not isinstance(saved, tuple) or len(saved) < 5 or _text(saved[0]) != "storage":
        raise PickleError("an object kept elsewhere")
    return saved[1:]


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def _part_of_file(opened: Opened, at: int, n_bytes: int) -> bytearray:
    opened.file.seek(at)
    return bytearray(opened.file.read(n_bytes))


class _MissingAllowed(pickle.Unpickler):
    """Unpickles with everything that can be imported; what cannot stands inert."""

    missing: Counter[str]
    why: dict[str, str]

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError) as error:
            self.missing[f"{module}.{name}"] += 1
            self.why[f"{module}.{name}"] = str(error) if isinstance(error, ImportError) else f"{module} has no {name}"
            return type(name.rsplit(".", 1)[-1], (Absent,), {"__module__": module, "__qualname__": name})
        except Exception as error:  # whatever a module raises while it is imported
            raise XaiError(
                f"it needs {module}, which fails where it is imported: {type(error).__name__}: {error}",
                hint=f'try python -c "import {module}"',
            ) from error


class Absent:
    """An object of a class that is not installed, in a file that is trusted."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.arguments, self.named = arguments, named

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        raise TypeError(f"{Name(type(self).__module__, type(self).__name__)} is not installed")


def run_torch(path: Path, opened: Opened | None = None) -> TorchContent:
    """The content of a file that is trusted, with the code it names run; classes that are not installed stay inert.

    Raises:
        DamagedFileError: It is not complete.
        XaiError: Its code fails.
    """
    import types

    import torch

    missing: Counter[str] = Counter()
    why: dict[str, str] = {}
    unpickler = type("Unpickler", (_MissingAllowed,), {"missing": missing, "why": why})
    module: Any = types.SimpleNamespace(
        Unpickler=unpickler,
        load=lambda file, **options: unpickler(file, **options).load(),
        __name__="pickle",
    )
    try:
        return TorchContent(
            torch.load(
                (opened or Opened(path)).from_start(), map_location="cpu", weights_only=False, pickle_module=module
            ),
            missing,
            why,
        )
    except XaiError as error:
        raise XaiError(f"{path}: {error}", hint=error.hint) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AssertionError) as error:
        raise damaged(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    except Exception as error:
        raise XaiError(
            f"{path} needs code that is not here: {error}", hint="say where with --pythonpath DIR"
        ) from error


def class_absent_in(model: nn.Module) -> str:
    """The class of the first part of a model whose class is not there; "" where all are."""
    waiting: list[Any] = [model]
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, Absent):
            return f"{type(part).__module__}.{type(part).__qualname__}"
        waiting += [each for each in vars(part).get("_modules", {}).values() if each is not None]
    return ""


def code_missing(path: Path, content: TorchContent, of: str = "") -> XaiError:
    """The error for a trusted file whose class cannot be imported.

    Args:
        path: The file.
        content: What running it gave.
        of: The class that is needed; the first that is not there where that is not known.
    """
    name = of if of in content.why else next(iter(content.why))
    return XaiError(f"{path} needs code that is not here: {content.why[name]} ({name})", hint=where_code_is(name))


def where_code_is(name: str) -> str:
    """How a pickled module of a class can be loaded."""
    weights = "--arch module:factory takes its weights without running it"
    if name.startswith("__main__."):
        return f"the class was in the script that saved it, which is in no module: {weights}"
    return f"say where it is with --pythonpath DIR (--pythonpath . for the current folder); or {weights}"
