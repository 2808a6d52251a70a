"""The queries over a lazy dataframe, written once for every engine.

Rules that keep engines equal: non-finite values become null before anything is aggregated (engines disagree on NaN),
values are widened to float64 before a mean, and an order is always total.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import narwhals.stable.v2 as nw

from xaicli.engines import ORDER
from xaicli.vocabulary import ATTEMPT, EPOCH, LABEL, PASS, QUANTILES, RANK, SAMPLE_ID, STEP, Bounds

Rows = nw.LazyFrame[Any]

LOGGED = (EPOCH, PASS, ATTEMPT, STEP, RANK, ORDER)
"""The order of places, and of logging within them."""


def finite(rows: Rows, metrics: Sequence[str]) -> Rows:
    """The rows with metrics as float64, null where they are not finite."""
    wide = [nw.col(metric).cast(nw.Float64()) for metric in metrics]
    return rows.with_columns(*wide).with_columns(
        *(nw.when(nw.col(metric).is_finite()).then(nw.col(metric)).alias(metric) for metric in metrics)
    )


def n_non_finite(rows: Rows, metrics: Sequence[str]) -> Rows:
    """One row: how many values of each metric are NaN or infinite."""
    wide = {metric: nw.col(metric).cast(nw.Float64()) for metric in metrics}
    return rows.select(
        *((~value.is_finite() & ~value.is_null()).cast(nw.Int64()).sum().alias(m) for m, value in wide.items())
    )


def n_rows(rows: Rows) -> Rows:
    """One row: `rows`, and `distinct`, how many (sample_id, epoch, pass) there are."""
    groups = rows.group_by(SAMPLE_ID, EPOCH, PASS).agg(nw.col(STEP).len().cast(nw.Int64()).alias("n"))
    return groups.select(nw.col("n").sum().alias("rows"), nw.col("n").len().cast(nw.Int64()).alias("distinct"))


def without_duplicates(rows: Rows) -> Rows:
    """Of each (sample_id, epoch, pass) the last row by (attempt, step, rank, order)."""
    return rows.unique([SAMPLE_ID, EPOCH, PASS], keep="last", order_by=[ATTEMPT, STEP, RANK, ORDER])


def within_labels(rows: Rows, label_key: str, labels: Sequence[Any]) -> Rows:
    """The rows of some labels; all rows without any."""
    return rows.filter(nw.col(label_key).is_in(list(labels))) if labels else rows


def last_values(rows: Rows, metric: str) -> Rows:
    """Each sample's value in the last place it has one in: sample_id, epoch, score.

    Args:
        rows: Finite, without duplicates.
    """
    known = rows.filter(~nw.col(metric).is_null()).select(SAMPLE_ID, *LOGGED, metric)
    last = known.unique([SAMPLE_ID], keep="last", order_by=list(LOGGED))
    return last.select(SAMPLE_ID, EPOCH, nw.col(metric).alias("score"))


def of_samples(rows: Rows, ids: Sequence[Any], columns: Mapping[str, str]) -> Rows:
    """The rows of some samples: sample_id, epoch, pass, and columns under new names; in the order of logging.

    Args:
        columns: {new name: column}.
    """
    found = rows.filter(nw.col(SAMPLE_ID).is_in(list(ids)))
    return found.sort(*LOGGED).select(
        SAMPLE_ID, EPOCH, PASS, *(nw.col(column).alias(name) for name, column in columns.items())
    )


def last_steps(rows: Rows) -> Rows:
    """The largest step of each place: epoch, pass, step."""
    return rows.group_by(EPOCH, PASS).agg(nw.col(STEP).max())


def labelled(rows: Rows, key: str, edges: Sequence[float], *, are_sets: bool) -> Rows:
    """The rows that have a label, with it in the column `label`.

    Args:
        key: The column of labels.
        edges: The upper ends of all parts but the last that labels which are numbers fall into; the number of the part,
            from 1, is the label then.
        are_sets: Whether labels are sets of classes, each of which counts.
    """
    if are_sets:
        told = rows.with_columns(nw.col(key).alias(LABEL)).explode(LABEL)
    elif edges:
        value = nw.col(key).cast(nw.Float64())
        finite_value = nw.when(value.is_finite()).then(value)
        part = nw.lit(1, nw.Int32())
        for edge in edges:
            part = part + (finite_value > edge).cast(nw.Int32())
        told = rows.with_columns(part.cast(nw.Int32()).alias(LABEL))
    else:
        told = rows if key == LABEL else rows.with_columns(nw.col(key).alias(LABEL))
    return told.filter(~nw.col(LABEL).is_null())


def label_statistics(rows: Rows, metric: str, bounds: Sequence[Bounds]) -> Rows:
    """Statistics of a metric per place and label.

    Args:
        rows: Finite, without duplicates, labelled.

    Returns:
        epoch, pass, label, n, mean, std (n - 1; null where n = 1), min, max, and the quantiles if `bounds` wants them.
    """
    value = nw.col(metric)
    wanted = QUANTILES if Bounds.QUANTILE in bounds else {}
    return (
        rows.filter(~value.is_null())
        .group_by(EPOCH, PASS, LABEL)
        .agg(
            value.len().cast(nw.Int64()).alias("n"),
            value.mean().alias("mean"),
            value.std(ddof=1).alias("std"),
            value.min().alias("min"),
            value.max().alias("max"),
            *(value.quantile(q, "linear").alias(name) for name, q in wanted.items()),
        )
    )
