"""Where all samples of an epoch lie: the bands behind the histories."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from xaicli.answer import Answer
from xaicli.queries.cache import cached
from xaicli.queries.scores import within_labels
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Place, Reader
from xaicli.vocabulary import DS_ID, EPOCH, MODE, STEP

_QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
_SCHEMA = {
    MODE: pl.String(),
    DS_ID: pl.String(),
    "metric": pl.String(),
    EPOCH: pl.Int32(),
    STEP: pl.Int64(),
    "n": pl.Int64(),
    **{name: pl.Float64() for name in _QUANTILES},
}


def population(reader: Reader, selection: Selection) -> pl.DataFrame:
    """Quantiles of each metric over the samples of every epoch; non-finite values are ignored.

    Returns:
        mode, ds_id, metric, epoch, step (the epoch's largest), n (finite values), q05, q25, q50, q75, q95 (float64,
        linear interpolation, null where n is 0); ordered by pair, metric, epoch.
    """

    def compute() -> Answer:
        rows = [row for pair in selection.pairs for row in _of_pair(reader, selection, pair)]
        data = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
        return Answer("population", str(reader.layout.root), selection.as_dict(), data)

    return cached(reader, selection, {"question": "population"}, compute).data


def _of_pair(reader: Reader, selection: Selection, pair: Pair) -> list[tuple[Any, ...]]:
    """The rows of one (mode, ds_id), metric by metric."""
    columns = list(dict.fromkeys([*selection.metrics, *([selection.label_key] if selection.label_map else [])]))
    by_metric: dict[str, list[tuple[Any, ...]]] = {metric: [] for metric in selection.metrics}
    frames = reader.epoch_frames(*pair, columns, selection.epochs[pair], duplicates=selection.duplicates)
    for epoch, frame in frames:
        kept = within_labels(frame, selection)
        step = reader.last_step(Place(*pair, epoch))
        for metric, rows in by_metric.items():
            values = kept[metric].drop_nulls()
            rows.append((*pair, metric, epoch, step, len(values), *_quantiles(values)))
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
