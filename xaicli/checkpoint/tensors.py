"""Tensors and arrays of a pickle: what torch and numpy write, described first and read from the file when wanted."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xaicli.checkpoint.pickles import Builder, Inert, Name, PickleReader

_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "QInt8": torch.int8,
    "QUInt8": torch.uint8,
    "QInt32": torch.int32,
    "Untyped": torch.uint8,
    "Typed": torch.uint8,
}
_NUMPY_CODE = re.compile(r"[<>|=]?(?:[biuf][1248]|b1|c8|c16|[SU]\d{1,9}|[mM]8(?:\[\w+\])?)")
_SHARDED = ("torch.distributed.tensor.DTensor", "torch.distributed._tensor.api.DTensor")
"""Tensors whose parts lie with several processes."""
_LARGEST_ITEM = 2**20


class TooLargeError(Exception):
    """A tensor that claims more than the file holds for it; the text says how much."""


@dataclass(eq=False)
class Storage:
    """Bytes of a file that tensors look at.

    Attributes:
        dtype: What one element is; uint8 where the tensors say it themselves.
        n_bytes: How many there are.
        load: Reads them.
    """

    dtype: torch.dtype
    n_bytes: int
    load: Callable[[], bytearray]
    _loaded: torch.Tensor | None = None

    def bytes(self) -> torch.Tensor:
        """The bytes as a tensor of uint8, read once: tensors that share a storage go on sharing it."""
        if self._loaded is None:
            data = self.load()
            self._loaded = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
        return self._loaded


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in a file, whose values were not read yet.

    Attributes:
        storage: Where its values are.
        dtype: What they are.
        offset: Of its first value, in elements.
        shape: Its sizes.
        stride: The steps between its values, in elements.
        views: What is applied to the stored values when they are read: "conj", "neg".
    """

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    views: tuple[str, ...] = ()

    def check(self) -> StoredTensor:
        """Itself, if the file holds what it claims.

        Raises:
            TooLargeError: It does not.
            ValueError: Its sizes are none.
        """
        if len(self.shape) != len(self.stride) or min((self.offset, *self.shape, *self.stride)) < 0:
            raise ValueError(f"{self.shape} with steps of {self.stride} is no shape")
        n = self.n_elements
        reach = self.offset + 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        claimed = max(n, reach if n else 0) * self.dtype.itemsize
        if claimed > self.storage.n_bytes:
            raise TooLargeError(f"{claimed:,} of {self.storage.n_bytes:,} bytes")
        return self

    @property
    def n_elements(self) -> int:
        """How many values it has."""
        n = 1
        for size in self.shape:
            n *= size
        return n

    @property
    def n_bytes(self) -> int:
        """How many bytes they take."""
        return self.n_elements * self.dtype.itemsize

    def read(self) -> torch.Tensor:
        """The tensor, on the CPU."""
        data = self.storage.bytes().untyped_storage()
        tensor = torch.empty(0, dtype=self.dtype).set_(data, self.offset, self.shape, self.stride)
        if "conj" in self.views:
            tensor = tensor.conj().resolve_conj()
        return -tensor if "neg" in self.views else tensor


@dataclass(frozen=True, eq=False)
class OddTensor:
    """A tensor that is not read: the text says what it is, to follow "a tensor"."""

    what: str
    shape: tuple[int, ...] = ()


AnyTensor = StoredTensor | OddTensor | torch.Tensor
"""What stands for a tensor in the content of a file."""


def values_of(tensor: StoredTensor | torch.Tensor) -> torch.Tensor:
    """A tensor with its values."""
    return tensor.read() if isinstance(tensor, StoredTensor) else tensor


@dataclass
class _Dtype:
    """numpy's dtype in the making: its byte order and unit come afterwards."""

    code: str

    def restore(self, state: Any) -> None:
        order, unit = state[1], state[-1]
        self.code = (order if order in ("<", ">") else "") + self.code.lstrip("<>|=")
        if self.code.lstrip("<>")[:1] in ("m", "M") and isinstance(unit, tuple):
            name, count = unit[1][0], unit[1][1]
            self.code += f"[{count if count != 1 else ''}{name if isinstance(name, str) else name.decode()}]"

    @property
    def dtype(self) -> np.dtype[Any]:
        if not _NUMPY_CODE.fullmatch(self.code):
            raise ValueError(f"{self.code} is no plain dtype")
        dtype = np.dtype(self.code)
        if dtype.itemsize > _LARGEST_ITEM:
            raise ValueError(f"{self.code} is no plain dtype")
        return dtype


@dataclass
class PickledArray:
    """numpy's array in the making: its values come afterwards."""

    array: NDArray[Any] | None = None

    def restore(self, state: Any) -> None:
        """Take shape, dtype and values."""
        _, shape, dtype, column_major, data = state
        with contextlib.suppress(ValueError, TypeError):  # objects and structures stay where they are, unread
            self.array = _array(data, dtype, shape, "F" if column_major else "C")


def _array(data: Any, dtype: Any, shape: Any, order: str = "C") -> NDArray[Any]:
    raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
    kind, sizes = dtype.dtype, tuple(int(n) for n in shape)
    n_elements = 1
    for size in sizes:
        n_elements *= size
    if min(sizes, default=0) < 0 or n_elements * kind.itemsize != len(raw):
        raise ValueError("an array whose size is not that of its data")
    flat: NDArray[Any] = np.frombuffer(bytearray(raw), dtype=kind) if raw else np.zeros(0, dtype=kind)
    return flat.reshape(sizes, order="F" if order == "F" else "C")


@dataclass
class TensorBuilders:
    """What builds tensors and arrays out of a pickle's calls.

    Attributes:
        nested: Reads a file inside a pickle (what `pickle.dump` makes of a tensor), given its bytes.
        reader: The reader that calls the builders, set by the caller.
    """

    nested: Callable[[bytes], Any]
    reader: PickleReader | None = field(default=None)

    def by_name(self) -> dict[str, Builder]:
        """The builders, by the names of the functions and classes they stand for."""
        array = "multiarray"
        numpy_builders: dict[str, Builder] = {
            "numpy.dtype": lambda code, *_: _Dtype(code if isinstance(code, str) else code.decode()),
            "numpy.ndarray": lambda *_: PickledArray(),
        }
        for core in ("numpy.core", "numpy._core"):
            numpy_builders[f"{core}.{array}._reconstruct"] = lambda *_: PickledArray()
            numpy_builders[f"{core}.{array}.scalar"] = lambda dtype, data=b"": _array(data, dtype, ())[()]
            numpy_builders[f"{core}.numeric._frombuffer"] = _array
        return numpy_builders | {
            "torch._utils._rebuild_tensor": _tensor,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_tensor_v3": self._typed_tensor,
            "torch._utils._rebuild_parameter": lambda data, *_: data,
            "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
            "torch._utils._rebuild_device_tensor_from_numpy": self._from_numpy,
            "torch._utils._rebuild_device_tensor_from_cpu_tensor": lambda data, *_: data,
            "torch._utils._rebuild_sparse_tensor": lambda layout, data: OddTensor(
                f"that is not dense ({layout})", _sizes(data[-2] if isinstance(data[-1], bool) else data[-1])
            ),
            "torch._utils._rebuild_nested_tensor": lambda *_: OddTensor("that is not dense (nested)"),
            "torch._utils._rebuild_qtensor": lambda _, __, size, *___: OddTensor("that is quantised", _sizes(size)),
            "torch._utils._rebuild_meta_tensor_no_storage": lambda _, size, *__: OddTensor(
                "without values", _sizes(size)
            ),
            "torch._tensor._rebuild_from_type_v2": self._subclass,
            "torch._tensor._rebuild_from_type": lambda function, kind, arguments, state: self._subclass(
                function, kind, arguments, state
            ),
            "torch.storage._load_from_bytes": self.nested,
            "torch.serialization._get_layout": str,
            "torch.Size": lambda sizes=(): tuple(sizes),
            "torch.device": lambda kind, index=None: str(kind) if index is None else f"{kind}:{index}",
        }

    def _typed_tensor(
        self, storage: Any, offset: int, size: Any, stride: Any, _: Any, hooks: Any, dtype: Any, views: Any = None
    ) -> AnyTensor:
        del hooks
        return _tensor(storage, offset, size, stride, metadata=views, dtype=_dtype(dtype))

    def _from_numpy(self, data: Any, dtype: Any, *_: Any) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(plain_array(data))).to(_dtype(dtype))

    def _subclass(self, function: Any, kind: Any, arguments: Any, state: Any) -> Any:
        assert self.reader is not None
        if str(kind) in _SHARDED:
            return _of_shards(arguments[2], state)
        if str(kind) not in ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"):
            self.reader.inert(kind)
        return self.reader.made(function, arguments)


def _of_shards(size: Any, state: Any) -> AnyTensor:
    """A tensor that FSDP shared out, where the file holds all of it, as that of a single process or a replica does."""
    held = state if isinstance(state, dict) else next((part for part in state if isinstance(part, dict)), {})
    local, spec = held.get("_local_tensor"), held.get("_spec")
    placements = spec.attributes.get("placements", ()) if isinstance(spec, Inert) else ()
    summed = any("Partial" in str(placement) for placement in placements)
    if isinstance(local, StoredTensor | torch.Tensor) and tuple(local.shape) == _sizes(size) and not summed:
        return local
    return OddTensor("of which the file holds one rank's shard (DTensor, FSDP)", _sizes(size))


def storage_dtype(kind: object) -> torch.dtype:
    """What the elements of a storage class are.

    Raises:
        ValueError: It is none of torch's.
    """
    name = kind.name if isinstance(kind, Name) else ""
    if not name.endswith("Storage") or (dtype := _STORAGES.get(name.removesuffix("Storage"))) is None:
        raise ValueError(f"{kind} is no storage")
    return dtype


def _tensor(
    storage: Any,
    offset: int,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    metadata: Any = None,
    *,
    dtype: torch.dtype | None = None,
) -> AnyTensor:
    del requires_grad, hooks
    if not isinstance(storage, Storage):
        raise TypeError("no storage")
    views = tuple(name for name in ("conj", "neg") if isinstance(metadata, dict) and metadata.get(name))
    made = StoredTensor(storage, dtype or storage.dtype, int(offset), _sizes(size), _sizes(stride), views)
    return made.check()


def _sizes(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _dtype(name: Any) -> torch.dtype:
    found = getattr(torch, name.name, None) if isinstance(name, Name) and name.module == "torch" else None
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name} is no dtype")
    return found


def plain_array(value: Any) -> NDArray[Any] | None:
    """An array of a pickle, if that is what a value is and its numbers could be read."""
    array = value.array if isinstance(value, PickledArray) else value
    return array if isinstance(array, np.ndarray) else None
