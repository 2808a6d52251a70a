"""A slot for every sample: ids of either kind become places in dense arrays, also when later epochs bring new ones."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.dynamics.arrays import Slots
from xaicli.vocabulary import SAMPLE_ID

_SLOT = "slot"
_TABLE_SPARE = 1 << 16
"""A look-up table may have this many places more than four an id: 256 KB at most are wasted on few ids."""


class IdIndex:
    """The slots of all ids seen so far: 0, 1, ... in order of appearance, and by id within one appearance.

    Epochs that hold the same ids in the same order, as compacted ones do, cost one comparison. Otherwise integers that
    lie close together are looked up in a table and all others by a hash join.
    """

    def __init__(self) -> None:
        self._ids: pl.Series | None = None
        self._table: Slots | None = None
        self._lowest = 0

    def __len__(self) -> int:
        return 0 if self._ids is None else len(self._ids)

    @property
    def ids(self) -> pl.Series:
        """The ids by slot; int64 or string."""
        return pl.Series(SAMPLE_ID, [], pl.Int64) if self._ids is None else self._ids

    def slots(self, ids: pl.Series) -> Slots | None:
        """The slots of some ids; ids not seen before get new ones.

        Args:
            ids: (n,) int64 or string, without nulls.

        Returns:
            (n,) slots, or None where they are simply 0..n-1.
        """
        if self._ids is not None and _same(ids, self._ids):
            return None
        found = self._look_up(ids)
        if found is None or int(found.min(initial=0)) < 0:
            fresh = ids if found is None else ids.filter(pl.Series(found < 0))
            self._append(fresh.unique().sort())
            if _same(ids, self.ids):
                return None
            found = self._look_up(ids)
            assert found is not None
        return found

    def _append(self, fresh: pl.Series) -> None:
        fresh = fresh.alias(SAMPLE_ID)
        self._ids = fresh.rechunk() if self._ids is None else pl.concat([self._ids, fresh], rechunk=True)
        self._table = None
        if not self._ids.dtype.is_integer():
            return
        known = self._ids.to_numpy()
        self._lowest, highest = int(known.min()), int(known.max())
        if highest - self._lowest < 4 * len(known) + _TABLE_SPARE:
            self._table = np.full(highest - self._lowest + 1, -1, np.int32)
            self._table[known - self._lowest] = np.arange(len(known), dtype=np.int32)

    def _look_up(self, ids: pl.Series) -> Slots | None:
        """The slots of some ids, -1 for those without one; None while there are no slots at all."""
        if self._ids is None:
            return None
        if self._table is not None:
            return self._from_table(self._table, ids.to_numpy())
        index = pl.DataFrame({SAMPLE_ID: self._ids}).with_row_index(_SLOT)
        joined = pl.DataFrame({SAMPLE_ID: ids}).join(index, on=SAMPLE_ID, how="left", maintain_order="left")
        return joined[_SLOT].cast(pl.Int32).fill_null(-1).to_numpy()

    def _from_table(self, table: Slots, ids: NDArray[np.int64]) -> Slots:
        last = self._lowest + len(table) - 1
        if len(ids) == 0 or (int(ids.min()) >= self._lowest and int(ids.max()) <= last):
            return table[ids - self._lowest]
        inside = (ids >= self._lowest) & (ids <= last)
        return np.where(inside, table[np.where(inside, ids, self._lowest) - self._lowest], np.int32(-1))


def _same(ids: pl.Series, known: pl.Series) -> bool:
    if len(ids) != len(known):
        return False
    if ids.dtype.is_integer():
        return bool(np.array_equal(ids.to_numpy(), known.to_numpy()))
    return bool((ids == known).all())
