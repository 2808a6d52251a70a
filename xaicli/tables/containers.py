"""What people hold columns in - lists, numpy, torch, pandas, polars, Arrow - read in one way: none changes what
is kept.

No library is loaded for it: a value of one is there only where the caller has loaded it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NUMBERS = "fiub"
_NUMERIC = (bool, int, float, complex, np.number, np.bool_)
_ABSENT = ("NAType", "NaTType", "MaskedConstant")
"""Types of what stands for a missing value in pandas and numpy."""


def read(value: Any) -> Any:
    """A column as an array, or as a list with None in place of what is missing in it; all else as it is.

    What a library tells from a value is missing (null, NA, masked); NaN is a value. Numbers beside a missing one stay
    what they were: as an array they would be real ones, and large whole ones rounded. A frame or a list-like column of
    as many numbers each is an array of rows, and so are objects that are numbers. A list of tensors or arrays is one of
    arrays, or of numbers. Arrays are of this machine's byte order.
    """
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            return read(_unmasked(value))
        return _of_objects(value) if value.dtype.kind == "O" else native(value)
    if isinstance(value, list | tuple):
        return _items(value)
    if is_tensor(value):
        try:
            return tensor_to_array(value)
        except (TypeError, RuntimeError, ValueError):
            return value  # what cannot be read is left out by name
    reader = _READERS.get(type(value).__module__.partition(".")[0])
    return value if reader is None else reader(value)


def native(array: NDArray[Any]) -> NDArray[Any]:
    """An array in this machine's byte order, in which its bytes are kept and Arrow and torch read them."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def for_torch(array: NDArray[Any]) -> NDArray[Any]:
    """An array as torch takes it: in this machine's byte order, in one piece, and of at most double precision."""
    array = native(array)
    return np.ascontiguousarray(array, np.float64 if array.dtype == np.longdouble else None)


def is_tensor(value: object) -> bool:
    """Whether a value is a torch tensor; never loads torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def has_tensors(values: Sequence[Any]) -> bool:
    """Whether any of the values is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and any(isinstance(value, torch.Tensor) for value in values)


def tensor_to_array(tensor: Any) -> NDArray[Any]:
    """A tensor as numpy; from a device by a copy that waits, bfloat16 as float32, a sparse or quantized one as what it
    holds.

    Raises:
        ValueError: It holds nothing.
    """
    if tensor.requires_grad:
        tensor = tensor.detach()
    try:
        if not tensor.is_cpu and not tensor.is_meta:
            tensor = tensor.cpu()
        return tensor.numpy()  # type: ignore[no-any-return]
    except (TypeError, RuntimeError):
        if tensor.is_meta:
            raise ValueError("the tensor is of the meta device and has no values") from None
        if tensor.is_quantized:
            return tensor.dequantize().numpy()  # type: ignore[no-any-return]
        if tensor.is_sparse or str(tensor.layout) != "torch.strided":
            tensor = tensor.to_dense()
        # bfloat16 and float8 have no numpy type; conjugate tensors need resolving.
        tensor = tensor.resolve_conj().resolve_neg()
        return (tensor if tensor.is_complex() else tensor.float()).numpy()  # type: ignore[no-any-return]


def _items(values: Sequence[Any]) -> Sequence[Any]:
    """A list with tensors as what they hold, and None for what stands for a missing value."""
    types = set(map(type, values))
    if has_tensors(values):
        values = [_item(one) if is_tensor(one) else one for one in values]
    if any(kind.__name__ in _ABSENT for kind in types):
        return [None if type(one).__name__ in _ABSENT else one for one in values]
    return values


def _item(tensor: Any) -> Any:
    held = read(tensor)
    if not isinstance(held, np.ndarray) or held.ndim:
        return held
    return held[()] if _is_narrow(held) else held.item()


def _is_narrow(values: NDArray[Any]) -> bool:
    """Whether values are real numbers of fewer digits than Python's: as numpy's they are written as they are."""
    return values.dtype.kind == "f" and values.dtype.itemsize < 8


def _of_objects(values: NDArray[Any]) -> Any:
    """An array of objects as a list, or as one of numbers where each of its rows is several of them."""
    if values.ndim == 1:
        return _items(values.tolist())
    kinds = set(map(type, values.flat))
    if not all(issubclass(kind, _NUMERIC) for kind in kinds) or (len(kinds) > 1 and values[:1].size == 1):
        return values  # one value a row is a column, in which each keeps its kind
    numbers = np.array(values.tolist())
    return numbers if numbers.shape == values.shape and numbers.dtype.kind != "O" else values


def _with_gaps(values: NDArray[Any], missing: NDArray[np.bool_]) -> Any:
    """Values with None where they are missing; narrow real numbers as numpy's, which are written as they are."""
    if not missing.any():
        return values
    items = list(values) if _is_narrow(values) else values.tolist()
    return [None if gone else one for one, gone in zip(items, missing.tolist(), strict=True)]


def _unmasked(array: Any) -> NDArray[Any]:
    """A masked array as objects, None where it is masked: what lies under a mask is no value."""
    masked = np.ma.getmaskarray(array)
    if not masked.any():
        return np.asarray(array.data)
    values: NDArray[Any] = array.data.astype(object)
    values[masked] = None
    return values


def _of_pandas(value: Any) -> Any:
    if not hasattr(value, "isna") or not hasattr(value, "to_numpy"):
        return value
    if getattr(value, "ndim", 1) == 2:
        return _rows(value, [value.iloc[:, place] for place in range(value.shape[1])])
    kind = value.dtype
    if isinstance(kind, np.dtype):
        return read(value.to_numpy())
    if hasattr(kind, "categories"):
        return _of_categories(getattr(value, "array", value))
    missing, base = np.asarray(value.isna()), getattr(kind, "numpy_dtype", None)
    if hasattr(kind, "fill_value"):  # sparse
        return native(np.asarray(value))
    if isinstance(base, np.dtype) and base.kind in _NUMBERS:
        filled = {"na_value": base.type(0)} if missing.any() else {}
        return _with_gaps(value.to_numpy(base, **filled), missing)
    items = np.asarray(value, object).tolist()
    return [None if gone else one for one, gone in zip(items, missing.tolist(), strict=True)]


def _of_categories(value: Any) -> Any:
    """A column of pandas that names its values by numbers."""
    codes, known = np.asarray(value.codes), read(value.categories)
    if isinstance(known, np.ndarray) and len(known):
        return _with_gaps(known[codes], codes < 0)
    return [None if code < 0 else known[code] for code in codes.tolist()]


def _of_polars(value: Any) -> Any:
    if hasattr(value, "get_columns"):
        return _rows(value, value.get_columns())
    if not hasattr(value, "to_list"):
        return value
    kind = str(value.dtype)
    if kind == "Boolean" or (value.dtype.is_numeric() and not kind.startswith("Decimal")):
        missing = value.is_null().to_numpy()
        filled = value.fill_null(kind != "Boolean" and 0) if missing.any() else value
        return _with_gaps(filled.to_numpy(), missing)
    return _even(value.to_list()) if kind.startswith("Array") else value.to_list()


def _of_arrow(value: Any) -> Any:
    if hasattr(value, "column_names"):
        return _rows(value, list(value.columns))
    if not hasattr(value, "to_pylist"):
        return value
    types = sys.modules["pyarrow"].types
    if types.is_floating(value.type) or types.is_integer(value.type):
        missing = np.asarray(value.is_null())
        return _with_gaps(np.asarray(value.fill_null(0) if missing.any() else value), missing)
    listed = value.to_pylist()
    return _even(listed) if types.is_fixed_size_list(value.type) else listed


def _rows(frame: Any, columns: Sequence[Any]) -> Any:
    """The columns of a frame as rows of an array, None where they have gaps."""
    found = [read(column) for column in columns]
    if not found:
        return frame
    kinds = [one.dtype.kind if isinstance(one, np.ndarray) else "O" for one in found]
    if all(kind in _NUMBERS for kind in kinds):
        return np.column_stack(found)
    return _of_objects(np.column_stack([np.fromiter(one, object, len(one)) for one in found]))


def _even(rows: list[Any]) -> Any:
    """Lists of one length as an array of rows, where they are of numbers."""
    if not rows or any(row is None for row in rows):
        return rows
    array = np.asarray(rows)
    return array if array.ndim > 1 and array.dtype.kind in _NUMBERS else rows


_READERS: dict[str, Callable[[Any], Any]] = {"pandas": _of_pandas, "polars": _of_polars, "pyarrow": _of_arrow}
