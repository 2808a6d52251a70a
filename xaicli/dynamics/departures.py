"""Labels whose mean departs from the other labels', or moves away from them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.dynamics.ranks import ODD, robust_scale
from xaicli.queries.labels import labels
from xaicli.queries.selection import Selection
from xaicli.reader import Reader
from xaicli.vocabulary import DS_ID, EPOCH, LABEL, MODE

_FEWEST = 4
"""Among fewer labels there is no majority to depart from."""
_COLUMNS = {MODE: pl.String, DS_ID: pl.String, "score": pl.Float64, EPOCH: pl.Int32, "reason": pl.String}


def departures(reader: Reader, selection: Selection, *, top: int) -> pl.DataFrame:
    """The labels that stand out by the first metric selected, at the last epoch or by the trend of the last half.

    Args:
        reader: The run.
        selection: Which rows.
        top: At most how many of each (mode, ds_id).

    Returns:
        mode, ds_id, label, score (robust deviations from the median label), epoch, reason; the largest score first.
        Empty where there are no labels.
    """
    label = reader.dtypes.get(selection.label_key)
    # A number or a set of classes is no group.
    if label is None or label.is_float() or label.is_nested():
        return pl.DataFrame(schema={**_COLUMNS, LABEL: label or pl.Int32()})
    means = labels(reader, selection, bounds=None).data.filter(pl.col("metric") == selection.metrics[0])
    rows = []
    for (mode, ds_id), of_pair in means.group_by(MODE, DS_ID, maintain_order=True):
        found = sorted(_departing(of_pair, selection.metrics[0]), key=lambda one: -one["score"])  # type: ignore[operator]
        rows += [{MODE: mode, DS_ID: ds_id, **row} for row in found[:top]]
    return pl.DataFrame(rows, schema={**_COLUMNS, LABEL: label})


def _departing(means: pl.DataFrame, metric: str) -> Iterator[dict[str, object]]:
    """Each label that stands out, once, for whichever is odder: its mean or its trend."""
    last = int(means[EPOCH].to_numpy().max())
    at_last = means.filter(pl.col(EPOCH) == last).sort(LABEL)
    if at_last.height < _FEWEST:
        return
    level, usual = at_last["mean"].to_numpy(), float(np.median(at_last["mean"].to_numpy()))
    trend = np.array([_trend(means.filter(pl.col(LABEL) == label)) for label in at_last[LABEL]])
    for number, (far, drift) in enumerate(zip(_deviations(level), _deviations(trend), strict=True)):
        if max(far, drift) < ODD:
            continue
        where = f"mean {metric} {level[number]:.3g} at epoch {last}, the median label's is {usual:.3g}"
        course = f"changes by {trend[number]:+.2g} an epoch, the median label by {float(np.median(trend)):+.2g}"
        yield {
            LABEL: at_last[LABEL][number],
            "score": float(max(far, drift)),
            EPOCH: last,
            "reason": where if far >= drift else f"{course}; {where}",
        }


def _trend(means: pl.DataFrame) -> float:
    """The least-squares slope of a label's mean over the last half of its epochs."""
    recent = means.sort(EPOCH).tail(max(means.height // 2, 2))
    epoch, mean = recent[EPOCH].to_numpy().astype(np.float64), recent["mean"].to_numpy()
    epoch -= epoch.mean()
    spread = float(epoch @ epoch)
    return float(epoch @ mean) / spread if spread else 0.0


def _deviations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    centre = float(np.median(values))
    distances = np.abs(values - centre)
    scale = robust_scale(values, centre, float(distances.max()))
    return distances / scale if scale else np.zeros_like(distances)
