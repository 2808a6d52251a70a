"""Arrow columns made of memory, without asking pandas.

`pa.array`, `pa.scalar` and `pa.repeat` import pandas, where there is one, to ask whether what they are given is of it.
In a training that takes a second; in the writer's thread, a process that is forked meanwhile could never import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_EPOCH = datetime(1970, 1, 1)
_MOST_BYTES = 2**31 - 1
_KINDS: dict[type, pa.DataType] = {
    str: pa.string(),
    bytes: pa.binary(),
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    date: pa.date32(),
    datetime: pa.timestamp("us"),
}
_NUMBERS = {
    bool: {pa.bool_()},
    int: {pa.int8(), pa.int16(), pa.int32(), pa.int64()},
    float: {pa.float32(), pa.float64()},
}


def column(values: Any, kind: pa.DataType | None = None) -> pa.Array:
    """`pa.array(values, kind)`; of values of one plain kind, and None, without pandas.

    Raises:
        ValueError, TypeError, OverflowError, pa.ArrowException: As `pa.array`.
    """
    made = None
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind == "U":
        values = values.tolist()
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.isnative and values.dtype.kind in "fiub":
        made = plain_array(values) if kind in (None, _kind_of(values)) else None
    elif isinstance(values, list | tuple | range):
        made = _of_items(values, kind)
    return pa.array(values, kind) if made is None else made


def _of_items(items: Sequence[Any], kind: pa.DataType | None) -> pa.Array | None:
    """The column of a list; None where that is not of one plain kind."""
    if kind is not None and pa.types.is_list(kind):
        return _lists(items, kind)
    types = set(map(type, items)) - {type(None)}
    if not types:
        return None if kind is None else pa.nulls(len(items), kind)
    single = types.pop()
    made = _KINDS.get(single)
    if types or made is None or kind not in (None, made, *_NUMBERS.get(single, ())):
        return None
    missing = np.fromiter((item is None for item in items), np.bool_, len(items))
    try:
        if single in (str, bytes):
            return _texts(
                [b"" if item is None else item.encode() if single is str else item for item in items], made, missing
            )
        return _numbers(items, single, kind or made, missing)
    except (ValueError, OverflowError):
        return None  # `pa.array` says why


def _lists(items: Sequence[Any], kind: pa.DataType) -> pa.Array | None:
    """The column of lists; None where what they hold is not of one plain kind."""
    if not set(map(type, items)) <= {list, tuple, type(None)}:
        return None
    flat = _of_items([one for item in items if item is not None for one in item], kind.value_type)
    if flat is None:
        return None
    missing = np.fromiter((item is None for item in items), np.bool_, len(items))
    ends = np.cumsum([0, *(0 if item is None else len(item) for item in items)], dtype=np.int32)
    return pa.Array.from_buffers(kind, len(items), [_validity(missing), pa.py_buffer(ends)], children=[flat])


def _numbers(items: Sequence[Any], single: type, kind: pa.DataType, missing: NDArray[np.bool_]) -> pa.Array:
    if single is date:
        days = [0 if item is None else (item - _EPOCH.date()).days for item in items]
        return plain_array(np.array(days, np.int32), missing, kind)
    if single is datetime:
        if any(item is not None and item.tzinfo is not None for item in items):
            raise ValueError("a time of a zone")
        return plain_array(
            np.array([0 if item is None else _microseconds(item) for item in items], np.int64), missing, kind
        )
    given = np.array([0 if item is None else item for item in items], kind.to_pandas_dtype())
    return plain_array(given, missing)


def _microseconds(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _texts(raw: list[bytes], kind: pa.DataType, missing: NDArray[np.bool_]) -> pa.Array:
    ends = np.concatenate([[0], np.cumsum(np.fromiter(map(len, raw), np.int64, len(raw)))])
    if ends[-1] > _MOST_BYTES:
        raise OverflowError("more than a column's offsets name")
    buffers = [_validity(missing), pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(raw))]
    return pa.Array.from_buffers(kind, len(raw), buffers)


def plain_array(
    values: NDArray[Any], missing: NDArray[np.bool_] | None = None, kind: pa.DataType | None = None
) -> pa.Array:
    """An array of numbers or truths, null where they are missing.

    Args:
        values: (N,) numbers or truths.
        missing: (N,) which are.
        kind: What the numbers stand for; themselves when None.
    """
    raw = np.packbits(values, bitorder="little") if values.dtype == np.bool_ else np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind or _kind_of(values), len(values), [_validity(missing), pa.py_buffer(raw)])


def _kind_of(values: NDArray[Any]) -> pa.DataType:
    return pa.bool_() if values.dtype == np.bool_ else pa.from_numpy_dtype(values.dtype)


def _validity(missing: NDArray[np.bool_] | None) -> pa.Buffer | None:
    return None if missing is None or not missing.any() else pa.py_buffer(np.packbits(~missing, bitorder="little"))


def text_again(text: str, n: int) -> pa.Array:
    """The same text in every row."""
    raw = text.encode()
    ends = np.arange(n + 1, dtype=np.int32) * np.int32(len(raw))
    return pa.Array.from_buffers(pa.string(), n, [None, pa.py_buffer(ends), pa.py_buffer(raw * n)])
