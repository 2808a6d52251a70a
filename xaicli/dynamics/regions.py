"""The regions of the data map (Swayamdipta et al. 2020): ambiguous, hard and easy samples."""

from __future__ import annotations

from collections.abc import Mapping
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


def on_map(found: Mapping[str, pl.Series]) -> dict[str, pl.Series]:
    """The column `region` for statistics with a `confidence` and a `variability`; nothing for others."""
    if not {"confidence", "variability"} <= found.keys():
        return {}
    return {"region": regions(found["confidence"], found["variability"])}


def regions(confidence: pl.Series, variability: pl.Series) -> pl.Series:
    """The region of every sample, null in the middle of the map and for samples without a place on it.

    The third, rounded down, of the samples with the highest variability is `ambiguous`; of the others, those among the
    third with the lowest confidence of all are `hard`, among the third with the highest `easy`. Where equal values
    straddle the border of a third, the earlier samples belong to it.

    Args:
        confidence: (n,) float64 in the order of sample ids, null for none.
        variability: (n,) likewise.
    """
    known = (confidence.is_not_null() & variability.is_not_null()).to_numpy()
    third = int(np.count_nonzero(known)) // _SHARE
    place = np.full(len(confidence), -1, np.int8)
    certain, varied = confidence.to_numpy(), variability.to_numpy()
    places: NDArray[np.intp] | None = None
    if not known.all():
        places = np.flatnonzero(known)
        certain, varied = certain[places], varied[places]
    for region, values, extreme in (
        (Region.EASY, certain, highest),
        (Region.HARD, certain, lowest),
        (Region.AMBIGUOUS, varied, highest),
    ):
        chosen = extreme(values, third)
        place[chosen if places is None else places[chosen]] = _ORDER.index(region)
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
    return _filled(values > border, values == border, k)


def lowest(values: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    """The places, ascending, of the k lowest values; of equal ones the earlier."""
    if k == 0:
        return np.empty(0, np.intp)
    border = np.partition(values, k - 1)[k - 1]
    return _filled(values < border, values == border, k)


def _filled(inside: NDArray[np.bool_], at_border: NDArray[np.bool_], k: int) -> NDArray[np.intp]:
    """The k places inside, or at the border and first."""
    missing = k - int(np.count_nonzero(inside))
    inside[np.flatnonzero(at_border)[:missing]] = True
    return np.flatnonzero(inside)


def named(codes: NDArray[np.int8], names: tuple[str, ...]) -> pl.Series:
    """Texts for codes, null for -1; as an enum, a sixteenth of the memory of text."""
    series = pl.Series(codes)
    return series.set(series < 0, None).cast(pl.UInt8).cat.to(pl.Enum(list(map(str, names))))
