"""What samples are, not how they fare: texts, numbers and dates by sample, checked and brought into tables."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, Set, Sized
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from xaicli.files import for_arrow
from xaicli.recorder import columns
from xaicli.tables.containers import is_tensor, read
from xaicli.tables.fact_file import as_json, as_text, plain, without_nan
from xaicli.vocabulary import SAMPLE_ID
from xaicli.wal import arrays

_KINDS = (str, bool, int, float, date, datetime, np.datetime64)
_NUMBERS = (float, np.floating, Decimal, int, np.integer)
_ABSENT = ("NAType", "NaTType")
_DAYS = ("Y", "M", "W", "D")
"""Units of numpy in which dates are days."""


def fact_table(
    sample_id: Any, facts: Mapping[str, Any], refuse: Callable[[str, str, int], None], id_kind: str | None = None
) -> pa.Table | None:
    """One row a sample; None where no fact can be kept.

    Args:
        sample_id: (N,) ids, or one.
        facts: {name: (N,) texts, numbers or dates, or one for all}.
        refuse: Told of a fact that is left out: its name, the reason, the rows.
        id_kind: The run's kind of ids, as of `columns.ids`.

    Raises:
        ValueError: None of the ids is one.
    """
    ids, usable, reasons = columns.ids(sample_id, id_kind)
    for reason, rows in reasons.items():
        refuse("facts", reason, rows)
    kept: dict[str, pa.Array] = {SAMPLE_ID: arrays.column(ids, pa.string() if isinstance(ids, list) else pa.int64())}
    for name, values in facts.items():
        try:
            kept[name] = without_nan(_column(name, values, len(ids), refuse))
        except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
            refuse(name, _named(name, error), len(ids))
    if len(kept) < 2 or not len(ids):
        return None
    return pa.table(kept) if usable is None else pa.table(kept).filter(arrays.column(usable))


def _column(name: str, values: Any, n: int, refuse: Callable[[str, str, int], None]) -> pa.Array:
    """A fact's column; a value that no such column holds is missing, and told of."""
    if name == SAMPLE_ID:
        raise ValueError("sample_id is no fact")
    given = _each(name, values, n)
    if len(given) != n:
        raise ValueError(f"{name} has {len(given)} values for {n} sample ids")
    if isinstance(given, (pa.Array, pa.ChunkedArray)) and pa.types.is_timestamp(given.type):
        return _within_64_bits(name, pa.chunked_array([given]) if isinstance(given, pa.Array) else given, refuse)
    if isinstance(given, np.ndarray) and given.dtype != object:
        try:
            return _within_64_bits(name, arrays.column(given), refuse)
        except (ValueError, TypeError, OverflowError, pa.ArrowException):
            pass  # some of its values may be facts
    items = _of_one_kind([_json_of(_single(item)) for item in given])
    try:
        return _within_64_bits(name, arrays.column(items), refuse)
    except (ValueError, TypeError, OverflowError, pa.ArrowException):
        column, reasons = _fitting(name, items)
    for reason, rows in reasons.items():
        refuse(name, reason, rows)
    return column


def _within_64_bits(name: str, array: pa.Array, refuse: Callable[[str, str, int], None]) -> pa.Array:
    """A column; whole numbers beyond 64 bits are missing, and told of.

    Raises:
        ValueError: It is of a kind that no fact is of, or all its values are such numbers.
    """
    kept = _plain(name, array)
    if beyond := kept.null_count - array.null_count:
        if kept.null_count == len(kept):
            raise ValueError(f"{name} holds whole numbers beyond 64 bits alone")
        refuse(name, f"{name} holds whole numbers beyond 64 bits", beyond)
    return kept


def _each(name: str, values: Any, n: int) -> Any:
    """(N,) values: those of an array or of what has an order, or a single one for all.

    Raises:
        ValueError: They have several values a sample, or no order that says whose each is.
    """
    is_moments = isinstance(values, (pa.Array, pa.ChunkedArray)) and pa.types.is_timestamp(values.type)
    given = values if is_moments else read(values)  # times of Arrow have more digits than Python's
    shape = getattr(given, "shape", ())
    if isinstance(given, np.ndarray) and given.ndim == 0:
        given = given[()]
    elif isinstance(shape, tuple) and len(shape) > 1:
        if shape[1:] != (1,):
            raise ValueError(f"{name} has shape {shape}; one value a sample is needed")
        given = np.asarray(given, None if isinstance(given, np.ndarray) else object).reshape(-1)
    if isinstance(given, (Mapping, ItemsView, Set)) and not isinstance(given, KeysView):
        raise ValueError(
            f"{name} is a {type(given).__name__}, whose order is not that of the ids: give one value a sample in their "
            "order, or one for all"
        )
    one = given if isinstance(given, np.ndarray) else _single(given)
    if isinstance(one, (str, bytes, bytearray, memoryview)) or not isinstance(one, Iterable):
        return [one] * n
    return one if isinstance(one, Sized) else list(islice(one, n + 1))  # which may have no end


def _single(item: Any) -> Any:
    """A value of a list as Python has it; what stands for a missing one in pandas or numpy is None."""
    if is_tensor(item) or isinstance(item, np.ma.MaskedArray):
        item = read(item)
    if isinstance(item, np.ndarray) and item.size == 1:
        item = item.reshape(-1)[0]
    if type(item).__name__ in _ABSENT and type(item).__module__.startswith("pandas."):
        return None
    if isinstance(item, np.datetime64):
        return _moment(item)
    if isinstance(item, np.generic) and not isinstance(item, np.timedelta64):  # whose nanoseconds would be numbers
        if isinstance(item, np.float32):
            return float(str(item))  # as `plain` reads a column of them
        return float(item) if isinstance(item, np.floating) else item.item()
    if isinstance(item, pa.Scalar):
        return item.as_py()
    if isinstance(item, datetime) and item.tzinfo is not None and (offset := item.utcoffset()) is not None:
        # Arrow has offsets of whole minutes alone; those of before there were zones have seconds.
        return item.astimezone(UTC) if offset.total_seconds() % 60 else item
    if isinstance(item, (UUID, Enum)):
        return str(item) if isinstance(item, UUID) else _single(item.value)
    return os.fspath(item) if isinstance(item, os.PathLike) else item


def _json_of(item: Any) -> Any:
    """A list or an object as its own JSON, whatever those beside it hold, or why it has none; all else as it is."""
    if not isinstance(item, (list, tuple, dict, set, frozenset)) and not (isinstance(item, np.ndarray) and item.ndim):
        return item
    try:
        return as_json(item)
    except (ValueError, TypeError, RecursionError) as error:  # it holds itself, a key is no text, it is too deep
        return error  # which no column holds, and Arrow would follow the deepest until the process dies


def _moment(item: np.datetime64) -> Any:
    """A date of numpy as one of Python's; as it is where that cannot hold it."""
    if np.isnat(item):
        return None
    is_day = np.datetime_data(item.dtype)[0] in _DAYS
    nearest = item.astype("datetime64[D]" if is_day else "datetime64[us]")
    value = nearest.item()
    return value if nearest == item and isinstance(value, date) else item


def _of_one_kind(values: list[Any]) -> list[Any]:
    """Values in which nothing is lost where Arrow would make one kind of two: NaN beside what is no number is a missing
    value, days beside times are times, times with a zone beside others are texts, and those of several zones in UTC.
    """
    if not all(value is None or (isinstance(value, _NUMBERS) and not isinstance(value, bool)) for value in values):
        values = [None if isinstance(value, _NUMBERS) and value != value else value for value in values]
    days = any(type(value) is date for value in values)
    zones = {value.tzinfo is not None for value in values if isinstance(value, datetime)}
    if len(zones) == 2 or (days and True in zones):
        return [value.isoformat(" ") if isinstance(value, datetime) else _day_text(value) for value in values]
    if len({str(value.tzinfo) for value in values if isinstance(value, datetime)}) > 1:
        # Arrow would keep all in the zone of the first.
        return [value.astimezone(UTC) if isinstance(value, datetime) else value for value in values]
    if days and zones:
        return [datetime(value.year, value.month, value.day) if type(value) is date else value for value in values]
    return values


def _day_text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _fitting(name: str, values: list[Any]) -> tuple[pa.Array, Mapping[str, int]]:
    """Values of several kinds as text, those that are no fact missing, and {why: how many}.

    Raises:
        ValueError: None is one.
    """
    found, reasons = [], Counter[str]()
    for value in values:
        try:
            found.append(None if value is None else _plain(name, arrays.column([_of_fact(name, value)]))[0].as_py())
        except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
            reasons[_named(name, error)] += 1
            found.append(None)
    known = [value for value in found if value is not None]
    if not known:
        raise ValueError(next(iter(reasons), f"{name} has no value"))
    kinds = {float if type(value) is int else type(value) for value in known}
    if len(kinds) > 1:
        found = [None if value is None else as_text(value) for value in found]
    elif kinds == {float}:
        found = [None if value is None else float(value) for value in found] if float in map(type, known) else found
    return arrays.column(found), reasons


def _of_fact(name: str, value: Any) -> Any:
    """A single value as Arrow takes it.

    Raises:
        ValueError: It is of a kind that no fact is of.
    """
    if isinstance(value, Exception):
        raise ValueError(str(value))
    if not isinstance(value, (*_KINDS, Decimal)):
        raise ValueError(f"{name} must be texts, numbers or dates, not {type(value).__name__}")
    whole = isinstance(value, int) or (isinstance(value, Decimal) and value.as_tuple().exponent == 0)
    if whole and not -(2**63) <= value < 2**63:  # type: ignore[operator]
        raise ValueError(f"{name} holds whole numbers beyond 64 bits")
    return value


def _named(name: str, error: Exception) -> str:
    """Why a fact is refused, by its name."""
    reason = str(error) or type(error).__name__
    return reason if reason.startswith(f"{name} ") else f"{name} cannot be kept: {reason}"


def _plain(name: str, array: pa.Array) -> pa.Array:
    """A column as text, whole number, number, truth value, date or time; lists and objects as their JSON.

    Raises:
        ValueError: It is of another kind.
    """
    kept = plain(array)
    if kept is None and pa.types.is_nested(array.type):
        kept = arrays.column([None if value is None else as_text(value) for value in array.to_pylist()], pa.string())
    if kept is None:
        raise ValueError(f"{name} must be texts, numbers or dates, not {array.type}")
    return kept


def kinds_before(folder: Path) -> dict[str, pa.DataType]:
    """The kinds of the facts that earlier attempts recorded, by their newest files; those that cannot be read are none.

    Args:
        folder: The run's `facts/`.
    """
    import pyarrow.parquet as pq

    kinds: dict[str, pa.DataType] = {}
    for path in sorted(folder.glob("*.parquet"), reverse=True)[:_NEWEST]:
        try:
            schema = pq.read_schema(for_arrow(path))
        except (OSError, pa.ArrowException):
            continue
        for field in schema:
            if field.name != SAMPLE_ID and not pa.types.is_null(field.type):
                kinds.setdefault(field.name, field.type)
    return kinds


_NEWEST = 32
"""Files of facts that are looked at for their kinds."""
