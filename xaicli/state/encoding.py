"""Plain data as JSON beside tensors and arrays: no pickle, nothing that runs on reading.

What JSON cannot say is an object with one key that begins with `$`; a dict that could be taken for one is written as
pairs. Tensors and arrays go into two flat collections that `tensors.pt` (read weights-only) and `arrays.npz` (read
without objects) hold.
"""

from __future__ import annotations

import base64
import math
import sys
from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass, field
from typing import Any

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
