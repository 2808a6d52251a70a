"""Fifths: numbers and dates by how large they are, as many in each, called the same by every question.

An infinite number is a value: it is in a part of its own beside the fifths. NaN is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.words import distinct, parts_between

_ENDS = np.array([0.2, 0.4, 0.6, 0.8])
_EXACT = 2.0**53
FEW_VALUES = 10
"""Numbers and dates of no more finite values are taken one by one where fifths would make groups of them."""
_LOOKED_AT = 1_000
BELOW, ABOVE = "-inf", "inf"
"""What the parts of infinite numbers are called."""


def are_many(column: pl.Series, most: int = FEW_VALUES) -> bool:
    """Whether a column holds numbers or dates of more finite values than are told one by one."""
    if not (column.dtype.is_numeric() or column.dtype.is_temporal()):
        return False
    return any(_n_finite(part) > most for part in (column.head(_LOOKED_AT), column))


def _n_finite(column: pl.Series) -> int:
    known = column.filter(column.is_finite()) if column.dtype.is_float() else column.drop_nulls()
    return known.n_unique()


@dataclass(frozen=True)
class Fifths:
    """The parts of a column; fewer than five where many values are the same.

    Attributes:
        ends: The largest value of each part but the last, ascending: numbers, or dates as polars counts them.
        names: What the parts are called. Whole numbers and dates by the first and last value there is in each: `up to
            27`, `28 to 37`, `above 57`; other numbers by what lies between the parts.
    """

    ends: tuple[float, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, column: pl.Series) -> Fifths:
        """The fifths of numbers or dates, of those that are finite; as of a single 0 where there is none."""
        numbers, known = _numbers(column)
        ordered = np.sort(numbers[known & np.isfinite(numbers)])  # sooner than np.quantile
        if not len(ordered):
            ordered = np.zeros(1)
        places = _ENDS * (len(ordered) - 1)
        below = np.floor(places).astype(np.intp)
        ends, first = np.unique(ordered[below], return_index=True)
        after = np.minimum(np.searchsorted(ordered, ends, side="right"), len(ordered) - 1)
        if _are_steps(column.dtype, ordered):
            last, beyond = _said(ends, column.dtype), _said(ordered[after], column.dtype)
            parts = zip(beyond, last[1:], strict=False)
            names = parts_between(last, [low if low == high else f"{low} to {high}" for low, high in parts])
        else:
            low, high = ordered[below], ordered[np.ceil(places).astype(np.intp)]
            bounds = (low + (high - low) * (places % 1))[first]
            names = parts_between(distinct(bounds.tolist(), 4))
        return cls(tuple(ends.tolist()), tuple(names))

    def parted(self, column: pl.Series) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
        """What the parts of a column are called, those of infinite numbers with them where it has some.

        Returns:
            The names, and (N,) the part that each row is in: as many as there are names where there is no value.
        """
        numbers, known = _numbers(column)
        below, above = (bool((numbers == end).any()) for end in (-np.inf, np.inf))
        codes = np.zeros(len(numbers), np.uint8)
        for end in ((-np.inf,) if below else ()) + self.ends:
            codes += numbers > end
        names = ((BELOW,) if below else ()) + self.names + ((ABOVE,) if above else ())
        codes[numbers == np.inf] = len(names) - 1
        codes[~known] = len(names)
        return names, codes


def _numbers(column: pl.Series) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values as numbers, whole ones exactly, and which are known: no null and no NaN."""
    if column.dtype.is_temporal() or column.dtype.is_integer():
        whole = column.to_physical().cast(pl.Int64, strict=False)
        return whole.fill_null(0).to_numpy(), whole.is_not_null().to_numpy()
    numbers = column.cast(pl.Float64).to_numpy().astype(np.float64)
    return numbers, ~np.isnan(numbers)


def _are_steps(dtype: pl.DataType, values: NDArray[Any]) -> bool:
    """Whether values go in steps: dates, and whole numbers that have all their digits."""
    if dtype.is_temporal() or dtype.is_integer():
        return True
    return bool((values == np.floor(values)).all() and np.abs(values[[0, -1]]).max() < _EXACT)


def _said(values: NDArray[Any], dtype: pl.DataType) -> list[str]:
    """Whole numbers or dates in words."""
    if not dtype.is_temporal():
        return [str(int(value)) for value in values]
    return [str(date) for date in pl.Series(values).cast(dtype)]
