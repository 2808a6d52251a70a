"""Column types: Arrow's names for them, and frames brought to one schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

_DTYPES: dict[str, pl.DataType] = {
    "bool": pl.Boolean(),
    "int8": pl.Int8(),
    "int16": pl.Int16(),
    "int32": pl.Int32(),
    "int64": pl.Int64(),
    "uint8": pl.UInt8(),
    "float": pl.Float32(),
    "float32": pl.Float32(),
    "double": pl.Float64(),
    "float64": pl.Float64(),
    "halffloat": pl.Float16(),
    "string": pl.String(),
    "large_string": pl.String(),
    "binary": pl.Binary(),
}


def dtype_of(arrow_name: str) -> pl.DataType:
    """The polars type of a column, by Arrow's name of its type; dictionaries count as their values."""
    if arrow_name.startswith("dictionary<"):
        values = arrow_name.removeprefix("dictionary<values=").partition(",")[0]
        return dtype_of(values)
    if arrow_name.startswith(("list<", "fixed_size_list<", "large_list<")):
        inner = arrow_name.partition("<")[2].rpartition(">")[0].removesuffix(" not null")
        name, colon, value = inner.partition(": ")  # a list's values may or may not be named
        return pl.List(dtype_of(value if colon and "<" not in name else inner))
    return _DTYPES.get(arrow_name, pl.String())


def conform(frame: pl.DataFrame, columns: Sequence[str], dtypes: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The frame with exactly these columns: absent ones null, dictionaries as their values, other types untouched.

    Args:
        frame: Rows of one file.
        columns: The columns of the result, in order.
        dtypes: The type of a column no file has yet.
    """
    present = frame.schema
    texts = [name for name in columns if present.get(name) in (pl.Categorical, pl.Enum)]
    absent = [pl.lit(None, dtype=dtypes.get(name, pl.Null())).alias(name) for name in columns if name not in present]
    if texts or absent:
        frame = frame.with_columns(*(pl.col(name).cast(pl.String) for name in texts), *absent)
    return frame if frame.columns == list(columns) else frame.select(columns)


def finite(frame: pl.DataFrame, metrics: Sequence[str]) -> tuple[pl.DataFrame, int]:
    """The frame with non-finite metric values replaced by null, and how many there were."""
    floats = [name for name in metrics if name in frame.columns and frame.schema[name].is_float()]
    if not floats:
        return frame, 0
    found = frame.select((~pl.col(name).is_finite()).sum() for name in floats).row(0)
    spoilt = [name for name, n in zip(floats, found, strict=True) if n]
    return frame.with_columns(pl.when(pl.col(n).is_finite()).then(pl.col(n)).alias(n) for n in spoilt), sum(found)
