"""Arrays with an entry a sample, its slot, and which slot is whose: ids of either kind, also when more come later."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from xaicli.vocabulary import SAMPLE_ID

Array = NDArray[Any]

Slots = NDArray[np.int32]
"""Places of samples in arrays."""

Where = slice | Slots
"""Distinct slots, ascending: all from one to another, or listed."""

NO_EPOCH = np.int32(np.iinfo(np.int32).min)
"""Stands for an epoch, or an integer label, that there is not."""

MANY = 2**31 - 1
"""As many observations as there can be, and the epoch furthest from 0."""

_BLOCK = 1 << 15
"""Samples worked on at a time: temporary arrays stay in the processor's cache."""
_SPARSE = 8
"""Below one sample in so many an epoch is sorted rather than laid out over all slots."""


def blocks(n: int) -> Iterator[slice]:
    """Slices that cover 0..n-1, each small enough for the processor's cache."""
    for start in range(0, n, _BLOCK):
        yield slice(start, min(start + _BLOCK, n))


def part(where: Where, chosen: slice | NDArray[np.intp] | NDArray[np.bool_] | None) -> Where:
    """The slots of some of the rows that `where` stands for; of all where None."""
    if chosen is None:
        return where
    if not isinstance(where, slice):
        listed: Slots = where[chosen]
        return listed
    if isinstance(chosen, slice):
        return slice(where.start + chosen.start, where.start + chosen.stop)
    rows = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
    return np.asarray(rows + where.start, np.int32)


def joined(parts: list[tuple[Where, Array]]) -> tuple[Where, Array]:
    """Slots and their values as one, where they come in parts."""
    wheres = [where for where, _ in parts]
    values = parts[0][1] if len(parts) == 1 else np.concatenate([values for _, values in parts])
    first = wheres[0]
    if len(parts) == 1:
        return first, values
    slices = [where for where in wheres if isinstance(where, slice)]
    if len(slices) == len(wheres) and all(a.stop == b.start for a, b in itertools.pairwise(slices)):
        return slice(slices[0].start, slices[-1].stop), values
    return np.concatenate([_listed(where) for where in wheres]), values


def _listed(where: Where) -> Slots:
    return np.arange(where.start, where.stop, dtype=np.int32) if isinstance(where, slice) else where


def stored_epoch(furthest: int) -> np.signedinteger[Any]:
    """What stands for no epoch where none is further from 0, of the smallest type that holds them all."""
    kind = np.min_scalar_type(-min(furthest, MANY) - 1)
    none: np.signedinteger[Any] = kind.type(np.iinfo(kind).min)
    return none


def as_epochs(stored: NDArray[np.signedinteger[Any]]) -> NDArray[np.int32]:
    """Stored epochs as int32, NO_EPOCH for none."""
    if stored.dtype == np.int32:
        return stored
    epochs = stored.astype(np.int32)
    epochs[stored == np.iinfo(stored.dtype).min] = NO_EPOCH
    return epochs


def as_series(name: str, values: Array) -> pl.Series:
    """Numbers as a column in the memory where they lie; NaN and, of int32, NO_EPOCH become null."""
    if values.dtype == np.bool_:
        return pl.Series(name, values)
    values = np.ascontiguousarray(values)
    absent = np.isnan(values) if values.dtype.kind == "f" else values == NO_EPOCH if values.dtype == np.int32 else None
    known = None if absent is None or not absent.any() else np.packbits(~absent, bitorder="little")
    # Not `pa.array`: it imports pandas where there is one.
    buffers = [None if known is None else pa.py_buffer(known), pa.py_buffer(values)]
    column = pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), buffers)
    # By way of a batch: of an array alone, polars imports all of pyarrow's functions first.
    return pl.DataFrame(pl.from_arrow(pa.RecordBatch.from_arrays([column], [name])))[name]


class GrowingArrays:
    """Named arrays with an entry a slot that grow together."""

    def __init__(self, **fills: Any) -> None:
        self._fills = {name: fill for name, fill in fills.items() if fill is not None}
        self._arrays: dict[str, Array] = {name: np.empty(0, fill.dtype) for name, fill in self._fills.items()}
        self._size = 0

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __len__(self) -> int:
        return self._size

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays that have not been handed over."""
        return tuple(self._arrays)

    def grow(self, size: int) -> None:
        """Make room for `size` slots; new ones hold the fill value."""
        if size <= self._size:
            return
        for name, old in self._arrays.items():
            fill = self._fills[name]
            # Zeroed memory costs nothing until it is used.
            new = np.zeros(size, fill.dtype) if fill == 0 else np.full(size, fill)
            new[: self._size] = old
            self._arrays[name] = new
        self._size = size

    def pop(self, name: str) -> Array:
        """Hand an array over for good: results are computed in place of sums to keep memory low."""
        return self._arrays.pop(name)


@dataclass(frozen=True)
class Rows:
    """Some rows of one epoch, each of another sample.

    Attributes:
        rows: (n,) their places in the frame; None for all as they lie.
        where: Their slots.
        n: How many there are.
        last: Whether no later row of these samples follows in the epoch.
    """

    rows: NDArray[np.intp] | None
    where: Where
    n: int
    last: bool = True

    def of(self, column: Array, block: slice) -> Array:
        """The values of a block of these rows in a column of the frame."""
        return column[block] if self.rows is None else column[self.rows[block]]


def distinct_rows(slots: Where, n: int, n_slots: int) -> Iterator[Rows]:
    """The rows of an epoch by slot; where samples repeat, in rounds of distinct ones, in the order of the rows.

    Args:
        slots: (n,) slots.
        n: How many rows there are.
        n_slots: How many slots there are.
    """
    if isinstance(slots, slice):
        yield Rows(None, slots, n)
        return
    if bool((slots[1:] > slots[:-1]).all()):
        yield Rows(None, _as_range(slots), n)
        return
    if n * _SPARSE >= n_slots:
        row_of = np.full(n_slots, -1, np.int32)
        row_of[slots] = np.arange(n, dtype=np.int32)
        present = np.flatnonzero(row_of >= 0)
        if len(present) == n:
            yield Rows(row_of[present].astype(np.intp), _as_range(present.astype(np.int32)), n)
            return
    order = np.argsort(slots, kind="stable")
    ordered = slots[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    lengths = np.diff(np.append(starts, n))
    # Counted from the end: the last round holds the last row of every sample.
    still_to_come = np.repeat(starts + lengths, lengths) - np.arange(n) - 1
    for number in reversed(range(int(lengths.max()))):
        chosen = still_to_come == number
        yield Rows(order[chosen], _as_range(ordered[chosen]), int(chosen.sum()), last=number == 0)


def _as_range(slots: Slots) -> Where:
    """Ascending distinct slots as a slice where they have no gaps."""
    if len(slots) and int(slots[-1]) - int(slots[0]) == len(slots) - 1:
        return slice(int(slots[0]), int(slots[-1]) + 1)
    return slots


_SLOT = "slot"
_TABLE_SPARE = 1 << 16
"""A look-up table may have this many places more than four an id: 256 KB at most are wasted on few ids."""


class IdIndex(ABC):
    """The slots of all ids seen so far: 0, 1, ... in order of appearance, and by id within one appearance.

    Epochs that hold the same ids in the same order, as compacted ones do, cost one comparison.
    """

    @staticmethod
    def of(dtype: pl.DataType) -> IdIndex:
        """An empty index for ids of a type."""
        return NumberIndex() if dtype.is_integer() else TextIndex()

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def ids(self) -> pl.Series:
        """The ids by slot."""

    @property
    @abstractmethod
    def ascend(self) -> bool:
        """Whether the ids ascend by slot."""

    @abstractmethod
    def reserve(self, n: int) -> None:
        """Make room for so many ids."""

    @abstractmethod
    def _starts(self, ids: pl.Series, at: int) -> bool:
        """Whether the known ids from a slot on are these."""

    @abstractmethod
    def _look_up(self, ids: pl.Series) -> Slots:
        """The slots of some ids, -1 for those without one."""

    @abstractmethod
    def _append(self, fresh: pl.Series) -> None:
        """Give slots to ids that have none, distinct and ascending."""

    def slots(self, ids: pl.Series, after: int = 0) -> Where:
        """The slots of some ids; ids not seen before get new ones.

        Args:
            ids: (n,), without nulls.
            after: Where to expect them: the known ids go on with them from there, if they come in the order known.

        Returns:
            (n,) slots; a slice where they follow one another.
        """
        expected = slice(after, after + len(ids))
        if self._starts(ids, after):
            return expected
        found = self._look_up(ids)
        if int(found.min(initial=0)) < 0:
            self._append(ids.filter(pl.Series(found < 0)).unique().sort())
            if self._starts(ids, after):
                return expected
            found = self._look_up(ids)
        return found


class NumberIndex(IdIndex):
    """Integer ids: those that lie close together are looked up in a table, others by a hash join."""

    def __init__(self) -> None:
        self._known = np.empty(0, np.int64)
        self._n = 0
        self._range = (0, -1)
        self._table: Slots | None = None

    def __len__(self) -> int:
        return self._n

    @property
    def ids(self) -> pl.Series:
        return as_series(SAMPLE_ID, self._known[: self._n])

    @property
    def ascend(self) -> bool:
        known = self._known[: self._n]
        return bool((known[1:] >= known[:-1]).all())

    def reserve(self, n: int) -> None:
        if n > len(self._known):
            larger = np.empty(n, np.int64)
            larger[: self._n] = self._known[: self._n]
            self._known = larger

    def _starts(self, ids: pl.Series, at: int) -> bool:
        known = self._known[at : min(at + len(ids), self._n)]
        return len(known) == len(ids) and bool(np.array_equal(ids.to_numpy(), known))

    def _append(self, fresh: pl.Series) -> None:
        end = self._n + len(fresh)
        if end > len(self._known):
            self.reserve(max(end, 2 * self._n))
        numbers = fresh.to_numpy()
        self._known[self._n : end] = numbers
        low, high = self._range
        self._range = (min(low, int(numbers[0])), max(high, int(numbers[-1]))) if self._n else (numbers[0], numbers[-1])
        self._n = end
        self._table = None

    def _look_up(self, ids: pl.Series) -> Slots:
        low, high = int(self._range[0]), int(self._range[1])
        numbers = ids.to_numpy()
        inside = (numbers >= low) & (numbers <= high)
        if not inside.any():
            return np.full(len(numbers), -1, np.int32)
        if high - low >= 4 * self._n + _TABLE_SPARE:
            return _joined(self.ids, ids)
        if self._table is None:
            self._table = np.full(high - low + 1, -1, np.int32)
            self._table[self._known[: self._n] - low] = np.arange(self._n, dtype=np.int32)
        if inside.all():
            found: Slots = self._table[numbers - low]
            return found
        return np.asarray(np.where(inside, self._table[np.where(inside, numbers, low) - low], -1), np.int32)


class TextIndex(IdIndex):
    """Text ids, looked up by a hash join."""

    def __init__(self) -> None:
        self._known = pl.Series(SAMPLE_ID, [], pl.String)

    def __len__(self) -> int:
        return len(self._known)

    @property
    def ids(self) -> pl.Series:
        return self._known

    @property
    def ascend(self) -> bool:
        return self._known.is_sorted()

    def reserve(self, n: int) -> None:
        """Texts are kept as they come."""

    def _starts(self, ids: pl.Series, at: int) -> bool:
        known = self._known[at : at + len(ids)]
        return len(known) == len(ids) and bool((ids == known).all())

    def _append(self, fresh: pl.Series) -> None:
        self._known = pl.concat([self._known, fresh.alias(SAMPLE_ID)])

    def _look_up(self, ids: pl.Series) -> Slots:
        return _joined(self._known, ids)


def _joined(known: pl.Series, ids: pl.Series) -> Slots:
    index = pl.DataFrame({SAMPLE_ID: known}).with_row_index(_SLOT)
    found = pl.DataFrame({SAMPLE_ID: ids}).join(index, on=SAMPLE_ID, how="left", maintain_order="left")
    slots: Slots = found[_SLOT].cast(pl.Int32).fill_null(-1).to_numpy()
    return slots
