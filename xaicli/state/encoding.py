"""Plain data as JSON beside tensors and arrays: no pickle, nothing that runs on reading.

What JSON cannot say is an object with one key that begins with `$`; a dict that could be taken for one is written as
pairs. Tensors and arrays go into two flat collections that `tensors.pt` (read weights-only) and `arrays.npz` (read
without objects) hold.
"""

from __future__ import annotations

import base64
import math
import sys
import zipfile
import zlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xaicli.files import have_written

_DICTS = (dict, OrderedDict, defaultdict, Counter)
"""All come back as plain dicts: whoever made a richer one takes its values over."""


@dataclass
class Encoder:
    """Turns values into JSON, collecting their tensors and arrays."""

    tensors: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)

    def encode(self, value: Any, where: str) -> Any:
        """The JSON of a value.

        Args:
            value: None, bool, int, float, complex, str, bytes; list, tuple, set, frozenset, dict of these; torch
                tensors, devices, dtypes and sizes; numpy arrays and scalars.
            where: What the value is, for the message.

        Raises:
            ValueError: The value, or something in it, is of another kind, or holds itself.
        """
        try:
            return self._encode(value, where)
        except RecursionError:
            raise ValueError(f"{where} is nested too deeply, or holds itself") from None

    def _encode(self, value: Any, where: str) -> Any:
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"$float": str(value)}
        if type(value) is list:
            return self._items(value, where)
        if type(value) in _DICTS:
            return self._dict(value, where)
        return self._tagged(value, where)

    def _items(self, values: Any, where: str) -> list[Any]:
        return [self._encode(item, f"{where}[{number}]") for number, item in enumerate(values)]

    def _dict(self, value: dict[Any, Any], where: str) -> Any:
        plain = all(type(key) is str for key in value) and not (len(value) == 1 and next(iter(value)).startswith("$"))
        if plain:
            return {key: self._encode(item, f"{where}[{key!r}]") for key, item in value.items()}
        pairs = [
            [self._encode(key, f"a key of {where}"), self._encode(item, f"{where}[{key!r}]")]
            for key, item in value.items()
        ]
        return {"$pairs": pairs}

    def _tagged(self, value: Any, where: str) -> Any:
        if type(value) is tuple:
            return {"$tuple": self._items(value, where)}
        if type(value) in (set, frozenset):
            return {f"${type(value).__name__}": self._items(sorted(value, key=repr), where)}
        if type(value) in (bytes, bytearray):
            return {"$bytes": base64.b64encode(value).decode("ascii")}
        if type(value) is complex:
            return {"$complex": [self._encode(part, where) for part in (value.real, value.imag)]}
        numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            return {"$tensor": self._tensor(value, where)}
        if torch is not None and isinstance(value, torch.dtype | torch.device):
            return {f"${type(value).__name__}": str(value).removeprefix("torch.")}
        if torch is not None and isinstance(value, torch.Size):
            return {"$tuple": self._items(value, where)}
        if numpy is not None and isinstance(value, numpy.ndarray):
            return {"$array": self._array(value, where)}
        if numpy is not None and isinstance(value, numpy.generic) and not value.dtype.hasobject:
            return {"$scalar": [value.dtype.str, base64.b64encode(value.tobytes()).decode("ascii")]}
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            # An enum or a named number: its plain value is what a load gives back.
            plain = next(kind for kind in (int, float, str) if isinstance(value, kind))
            return self._encode(plain(value), where)
        raise ValueError(f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which no state can hold")

    def _tensor(self, tensor: Any, where: str) -> str:
        import torch

        if (
            type(tensor) not in (torch.Tensor, torch.nn.Parameter)
            or tensor.layout is not torch.strided
            or tensor.is_meta
        ):
            kind = f"{type(tensor).__name__} of layout {tensor.layout} on {tensor.device}"
            raise ValueError(f"{where} is a {kind}, which no state can hold")
        plain = tensor.detach().cpu()
        if plain.untyped_storage().nbytes() > plain.numel() * plain.element_size():
            # A view would take its whole storage into the file.
            plain = plain.clone(memory_format=torch.contiguous_format)
        key = str(len(self.tensors))
        self.tensors[key] = plain
        return key

    def _array(self, array: Any, where: str) -> str:
        if array.dtype.hasobject:
            raise ValueError(f"{where} is an array of objects, which no state can hold")
        key = str(len(self.arrays))
        self.arrays[key] = array
        return key


def decode(value: Any, tensors: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """The value behind its JSON.

    Raises:
        ValueError: The JSON is not what an `Encoder` writes, or names a tensor or array that is not there.
    """
    try:
        return _decode(value, tensors, arrays)
    except (KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"the state is not one that was saved here: {error!r}") from error


def _decode(value: Any, tensors: dict[str, Any], arrays: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1 or not next(iter(value)).startswith("$"):
        return {key: _decode(item, tensors, arrays) for key, item in value.items()}
    ((tag, held),) = value.items()
    match tag:
        case "$float":
            return float(held)
        case "$pairs":
            return {_decode(key, tensors, arrays): _decode(item, tensors, arrays) for key, item in held}
        case "$tuple" | "$set" | "$frozenset":
            kinds = {"$tuple": tuple, "$set": set, "$frozenset": frozenset}
            return kinds[tag](_decode(item, tensors, arrays) for item in held)
        case "$bytes":
            return base64.b64decode(held, validate=True)
        case "$complex":
            return complex(*(_decode(part, tensors, arrays) for part in held))
        case "$tensor":
            return tensors[held]
        case "$array":
            return arrays[held]
        case "$scalar":
            return _scalar(*held)
        case "$dtype" | "$device":
            return _torch_value(tag, held)
        case _:
            raise ValueError(f"the state holds a value of unknown kind {tag!r}")


def _scalar(dtype: str, text: str) -> Any:
    import numpy as np

    (value,) = np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype)
    return value


def _torch_value(tag: str, text: str) -> Any:
    import torch

    if tag == "$device":
        return torch.device(text)
    dtype = getattr(torch, text, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"there is no torch.{text}")
    return dtype


TENSORS, ARRAYS = "tensors.pt", "arrays.npz"
_BLOCK = 1 << 20


def write_values(folder: Path, encoder: Encoder) -> dict[str, Any]:
    """Write what an encoder has collected.

    Returns:
        {file name: {"bytes", "crc32"}} of the files written.
    """
    files = {}
    if encoder.tensors:
        import torch

        with (folder / TENSORS).open("wb") as file:
            have_written(file, lambda told: torch.save(encoder.tensors, told))
        files[TENSORS] = _facts_of(folder / TENSORS)
    if encoder.arrays:
        import numpy as np

        np.savez(folder / ARRAYS, **encoder.arrays)
        files[ARRAYS] = _facts_of(folder / ARRAYS)
    return files


def _facts_of(path: Path) -> dict[str, int]:
    return {"bytes": path.stat().st_size, "crc32": _crc32(path)}


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum


def read_tensors(folder: Path, files: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a state, on the CPU; none where `files`, what `write_values` returned, names no such file.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is damaged, or holds something else.
    """
    path = verified(folder, TENSORS, files)
    if path is None:
        return {}
    import torch

    _refuse_packed(path)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is none of its own
        raise ValueError(f"{path} cannot be read as tensors: {error}") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise ValueError(f"{path} holds something else than named tensors")
    return tensors


def read_arrays(folder: Path, files: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a state, likewise."""
    path = verified(folder, ARRAYS, files)
    if path is None:
        return {}
    import numpy as np

    _refuse_packed(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # likewise
        raise ValueError(f"{path} cannot be read as arrays: {error}") from error


def verified(folder: Path, name: str, files: Mapping[str, Any]) -> Path | None:
    """The path of a file whose bytes are those that were written; None where there is to be none.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is damaged.
    """
    if name not in files:
        return None
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"could not find {path}, a part of the training state")
    expected = files[name]
    if {"bytes": path.stat().st_size, "crc32": _crc32(path)} != expected:
        raise ValueError(f"{path} is damaged: its checksum does not fit; an older state may lie beside its folder")
    return path


def _refuse_packed(path: Path) -> None:
    """Refuse an archive whose members unpack to more than the file: no state is written so."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError(f"{path} holds compressed or overlapping members; no state is written so")
