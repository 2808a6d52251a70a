"""Where all samples of a place lie: the bands behind the histories."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from xaicli.answer import Answer
from xaicli.queries.cache import cached
from xaicli.queries.selection import Pair, Selection
from xaicli.queries.walk import walk
from xaicli.reader import Reader
from xaicli.vocabulary import DS_ID, EPOCH, MODE, PASS, STEP

_QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
_SCHEMA = {
    MODE: pl.String(),
    DS_ID: pl.String(),
    "metric": pl.String(),
    EPOCH: pl.Int32(),
    PASS: pl.Int16(),
    STEP: pl.Int64(),
    "n": pl.Int64(),
    **{name: pl.Float64() for name in _QUANTILES},
}


def population(reader: Reader, selection: Selection) -> pl.DataFrame:
    """Quantiles of each metric over the samples of every place; non-finite values are ignored.

    Returns:
        mode, ds_id, metric, epoch, pass, step (the place's largest), n (finite values), q05, q25, q50, q75, q95
        (float64, linear interpolation, null where n is 0); ordered by pair, metric, place.
    """

    def compute() -> Answer:
        rows = [row for pair in selection.pairs for row in _of_pair(reader, selection, pair)]
        data = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
        return Answer("population", str(reader.layout.root), selection.as_dict(), data)

    return cached(reader, selection, {"question": "population"}, compute).data


def _of_pair(reader: Reader, selection: Selection, pair: Pair) -> list[tuple[Any, ...]]:
    """The rows of one (mode, ds_id), metric by metric."""
    by_metric: dict[str, list[tuple[Any, ...]]] = {metric: [] for metric in selection.metrics}
    for place, step, frame, _ in walk(reader, selection, pair, selection.metrics):
        for metric, rows in by_metric.items():
            values = frame[metric].drop_nulls()
            rows.append((*pair, metric, place.epoch, place.turn, step, len(values), *_quantiles(values)))
    return [row for rows in by_metric.values() for row in rows]


def _quantiles(values: pl.Series) -> list[float | None]:
    """The quantiles of some values, all or none of them known."""
    if values.is_empty():
        return [None] * len(_QUANTILES)
    # Sorted as narrow as they are stored: several times faster than as float64.
    ordered = np.sort(values.to_numpy())
    found: list[float | None] = []
    for q in _QUANTILES.values():
        place = q * (len(ordered) - 1)
        low = float(ordered[int(place)])
        high = float(ordered[min(int(place) + 1, len(ordered) - 1)])
        found.append(low + (high - low) * (place - int(place)))
    return found
