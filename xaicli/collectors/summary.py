"""A collected table in figures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import polars as pl
import pyarrow as pa

from xaicli.tables.column import schema_of


def summary(tables: Mapping[str, pa.Table], *, without: Collection[str] = ()) -> pl.DataFrame:
    """One row a column, but for those `without`: of numbers mean and range; missing values, rows, table, type."""
    return pl.DataFrame(
        [
            {"table": name, "column": field.name, "type": schema_of(field).kind, **_figures(rows[field.name])}
            for name, rows in tables.items()
            for field in rows.schema
            if field.name not in without
        ],
        # What says most comes first: a narrow terminal shows no more.
        schema={
            "column": pl.String,
            "mean": pl.Float64,
            "min": pl.Float64,
            "max": pl.Float64,
            "missing": pl.Int64,
            "rows": pl.Int64,
            "table": pl.String,
            "type": pl.String,
            "non_finite": pl.Int64,
        },
    )


def _figures(column: pa.ChunkedArray) -> dict[str, Any]:
    known: dict[str, Any] = {"rows": len(column), "missing": column.null_count}
    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        return known
    values = pl.Series(pl.from_arrow(column)).cast(pl.Float64).drop_nulls()
    finite = values.filter(values.is_finite())
    return known | {
        "non_finite": len(values) - len(finite),
        "mean": finite.mean(),
        "min": finite.min(),
        "max": finite.max(),
    }
