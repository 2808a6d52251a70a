"""Rows of one sample in one place: found, counted, and one of them chosen."""

from __future__ import annotations

import numpy as np
import polars as pl

from xaicli.errors import XaiError
from xaicli.reader.pieces import Place
from xaicli.vocabulary import ATTEMPT, RANK, SAMPLE_ID, STEP, Duplicates

_SPREAD = 8
"""Ids whose range is at most this many times their number are marked in a table instead of hashed."""


def count(ids: pl.Series) -> int:
    """How many of the ids repeat an earlier one.

    Args:
        ids: The `sample_id` column of one place, any order.
    """
    if len(ids) < 2:
        return 0
    if ids.dtype.is_integer() and not ids.null_count():
        values = ids.to_numpy()
        low, high = int(values.min()), int(values.max())
        if high - low < max(_SPREAD * len(ids), 1024):
            seen = np.zeros(high - low + 1, dtype=np.bool_)
            seen[values - low] = True
            return len(ids) - int(np.count_nonzero(seen))
    return len(ids) - ids.n_unique()


def last(frame: pl.DataFrame) -> pl.DataFrame:
    """The last row of each sample by (attempt, step, rank, order), in the order of the ids' last rows.

    Args:
        frame: The rows of one place in the order they were logged in, with `attempt`, `step` and `rank`.
    """
    ordered = frame.sort(ATTEMPT, STEP, RANK, maintain_order=True)
    return ordered.unique(SAMPLE_ID, keep="last", maintain_order=True)


def refuse_if_asked(ids: pl.Series, duplicates: Duplicates, place: Place) -> None:
    """Raise when duplicates are there and must not be.

    Raises:
        XaiError: `duplicates` is `error`; names one sample that repeats.
    """
    if duplicates is not Duplicates.ERROR:
        return
    first = ids.filter(ids.is_duplicated()).min()
    raise XaiError(
        f"sample {first!r} was logged more than once in {place.mode}"
        + (f" {place.ds_id}" if place.ds_id else "")
        + f", epoch {place.epoch}"
        + (f", pass {place.turn}" if place.turn else ""),
        hint="--duplicates last takes the last row of each sample, all takes every row",
    )
