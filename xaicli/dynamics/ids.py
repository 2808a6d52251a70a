"""A slot for every sample: ids of either kind become places in dense arrays, also when later epochs bring new ones."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import polars as pl

from xaicli.dynamics.arrays import Slots, Where, as_series
from xaicli.vocabulary import SAMPLE_ID

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
