"""The regions of the data map (Swayamdipta et al. 2020): ambiguous, hard and easy samples."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import polars as pl
from numpy.typing import NDArray


class Region(StrEnum):
    """Where on the data map a sample lies."""

    AMBIGUOUS = "ambiguous"
    HARD = "hard"
    EASY = "easy"


_ORDER = tuple(Region)
_SHARE = 3


def regions(confidence: pl.Series, variability: pl.Series) -> pl.Series:
    """The region of every sample, null in the middle of the map and for samples without a place on it.

    The third, rounded down, of the samples with the highest variability is `ambiguous`; of the others, those among the
    third with the lowest confidence of all are `hard`, among the third with the highest `easy`. Where equal values
    straddle the border of a third, the earlier samples belong to it.

    Args:
        confidence: (n,) float64 in the order of sample ids, null for none.
        variability: (n,) likewise.
    """
    on_map = np.flatnonzero((confidence.is_not_null() & variability.is_not_null()).to_numpy())
    place = np.full(len(confidence), -1, np.int8)
    certain, varied = (column.to_numpy()[on_map] for column in (confidence, variability))
    third = len(on_map) // _SHARE
    for region, chosen in (
        (Region.EASY, highest(certain, third)),
        (Region.HARD, highest(-certain, third)),
        (Region.AMBIGUOUS, highest(varied, third)),
    ):
        place[on_map[chosen]] = _ORDER.index(region)
    return named(place, _ORDER).alias("region")


def highest(values: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    """The places, ascending, of the k highest values; of equal ones the earlier.

    Args:
        values: (n,) without NaN.
        k: At most n.
    """
    if k == 0:
        return np.empty(0, np.intp)
    border = np.partition(values, len(values) - k)[len(values) - k]
    above = np.flatnonzero(values > border)
    at = np.flatnonzero(values == border)[: k - len(above)]
    return np.sort(np.concatenate((above, at)))


def named(codes: NDArray[np.int8], names: tuple[str, ...]) -> pl.Series:
    """Texts for codes, null for -1."""
    series = pl.Series(codes)
    return pl.Series(list(map(str, names))).gather(series.set(series < 0, None))
