"""A growing set of sample ids."""

from __future__ import annotations

import numpy as np
import polars as pl

_SPREAD = 8
"""Integer ids whose range is at most this many times their number are marked in a table; others are hashed."""


class SeenIds:
    """The ids added so far, all of one kind."""

    def __init__(self) -> None:
        self._ids: pl.Series | None = None
        self._low = 0
        self._table: np.ndarray[tuple[int], np.dtype[np.bool_]] | None = None

    def unseen(self, ids: pl.Series) -> pl.Series:
        """Which of the ids are not in the set: a boolean for each."""
        if self._ids is None or ids.is_empty():
            return pl.Series([True]).new_from_index(0, len(ids))
        if self._table is None:
            return ~ids.is_in(self._ids.implode())
        values = ids.to_numpy()
        if values.min() >= self._low and values.max() < self._low + len(self._table):
            return pl.Series(~self._table[values - self._low])
        places = values - self._low
        inside = (places >= 0) & (places < len(self._table))
        return pl.Series(~(self._table[np.where(inside, places, 0)] & inside))

    def add(self, ids: pl.Series) -> None:
        """Put ids into the set."""
        self._ids = ids if self._ids is None else pl.concat([self._ids, ids])
        self._table = None
        if not ids.dtype.is_integer() or self._ids.is_empty():
            return
        values = self._ids.to_numpy()
        low, high = int(values.min()), int(values.max())
        if high - low < max(_SPREAD * len(values), 1024):
            self._low = low
            self._table = np.zeros(high - low + 1, dtype=np.bool_)
            self._table[values - low] = True
