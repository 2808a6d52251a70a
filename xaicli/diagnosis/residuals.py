"""How far the numbers of a regression are off: over time, by the size of the label, by fact, sample by sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.diagnosis.slices import by_quintile, coded
from xaicli.queries.truth import as_recorded
from xaicli.vocabulary import LABEL, PREDICTION, SAMPLE_ID

Floats = NDArray[np.float64]

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
"""The quantiles of the residuals that are shown."""
POINTS = 2000
"""So many samples are drawn as points."""
_FARTHEST = 200


def pairs(frame: pl.DataFrame) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Labels and predictions as numbers, and which rows have both, finite.

    Args:
        frame: Rows with `label` and `prediction`.
    """
    label, prediction = (
        frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy().astype(np.float64)
        for name in (LABEL, PREDICTION)
    )
    return label, prediction, np.isfinite(label) & np.isfinite(prediction)


def residual_figures(label: Floats, prediction: Floats) -> dict[str, float | int | None]:
    """The figures of some samples; a residual is label minus prediction.

    Args:
        label: (N,) finite.
        prediction: (N,) finite.

    Returns:
        n, bias (the mean residual), mae, rmse, median_abs_error, r2 (1 - squared residuals over squared deviations of
        the labels; None where all labels are equal), and the quantiles `QUANTILES` of the residuals; None without rows.
    """
    n = len(label)
    names = ("bias", "mae", "rmse", "median_abs_error", "r2", *QUANTILES)
    if not n:
        return {"n": 0, **dict.fromkeys(names)}
    residual = label - prediction
    spread = float(((label - label.mean()) ** 2).sum())
    off = np.abs(residual)
    values = (
        float(residual.mean()),
        float(off.mean()),
        float(np.sqrt((residual**2).mean())),
        float(np.median(off)),
        1 - float((residual**2).sum()) / spread if spread else None,
        *np.quantile(residual, list(QUANTILES.values())).tolist(),
    )
    return {"n": n, **dict(zip(names, values, strict=True))}


def grouped(
    frame: pl.DataFrame,
    columns: Sequence[str],
    truth: str = LABEL,
    names: Mapping[str, Mapping[Any, str]] | None = None,
) -> Iterator[dict[str, Any]]:
    """The figures by quintile of the label, and by each value of some columns.

    Args:
        frame: Rows with label, prediction and the columns.
        columns: Facts, say; numbers of many values by quintile, of many texts the most frequent and the rest together.
        truth: What the column is called that stands as the label.
        names: {column: {value: what it is called}}.

    Yields:
        column, value, and what `residual_figures` gives; groups without a sample are left out.
    """
    label, prediction, known = pairs(frame)
    label, prediction = label[known], prediction[known]
    rows = frame.filter(pl.Series(known))
    if not len(label):
        return
    parts: list[tuple[str, Sequence[str], NDArray[np.uint8]]] = [(truth, *by_quintile(rows[LABEL]))]
    parts += [(name, (one := coded(as_recorded(rows, name))).names, one.codes) for name in columns if name != truth]
    for column, values, codes in parts:
        for code, value in enumerate(values):
            own = codes == code
            if own.any():
                called = (names or {}).get(column, {}).get(value, value)
                yield {"column": column, "value": called, **residual_figures(label[own], prediction[own])}


def worst(frame: pl.DataFrame, top: int) -> list[dict[str, Any]]:
    """The samples farthest off, the farthest first: sample_id, label, prediction, residual; ties by id."""
    off = (pl.col(LABEL) - pl.col(PREDICTION)).cast(pl.Float64).alias("residual")
    known = frame.select(SAMPLE_ID, LABEL, PREDICTION, off).filter(pl.col("residual").is_finite())
    by = known.sort(pl.col("residual").abs(), SAMPLE_ID, descending=[True, False])
    return by.head(top).to_dicts()


def points(frame: pl.DataFrame) -> tuple[list[dict[str, Any]], int]:
    """Samples to draw, predicted against true, and how many there are: all, or the farthest off and every k-th."""
    rows = worst(frame, frame.height)
    if len(rows) <= POINTS:
        return rows, len(rows)
    rest = rows[_FARTHEST:]
    step = -(-len(rest) // (POINTS - _FARTHEST))
    return [*rows[:_FARTHEST], *rest[::step]], len(rows)
