"""Per-step values of the whole run: what `run.log` was given, as rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from xaicli.recorder.columns import metric

AXES = ("step", "iteration", "epoch")
"""The keys that give the time axis, the finest first."""
SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "mode": pa.string(),
        "ds_id": pa.string(),
        "epoch": pa.int32(),
        "step": pa.int64(),
        "axis": pa.string(),
        "value": pa.float64(),
        "attempt": pa.int16(),
        "rank": pa.int16(),
    }
)


@dataclass(frozen=True)
class Moment:
    """When and where scalars were logged, as far as they do not say so themselves."""

    mode: str
    ds_id: str
    epoch: int | None
    count: int
    attempt: int
    rank: int


def scalar_rows(scalars: Mapping[str, Any], moment: Moment) -> list[tuple[Any, ...]]:
    """One row a scalar.

    Args:
        scalars: {key: number}; of the keys in `AXES` the finest becomes the time axis, `epoch` the epoch too.
        moment: What holds otherwise; without an axis key `count` is the time.

    Raises:
        ValueError: A value is no single number; it is named.
    """
    times = {axis: int(_number(scalars[axis], axis)) for axis in AXES if axis in scalars}
    axis = next(iter(times), "counter")
    step = times.get(axis, moment.count)
    epoch = times.get("epoch", moment.epoch)
    where = (moment.mode, moment.ds_id, epoch, step, axis)
    return [
        (str(key), *where, _number(value, str(key)), moment.attempt, moment.rank)
        for key, value in scalars.items()
        if key not in AXES
    ]


def _number(value: Any, name: str) -> float:
    if isinstance(value, int | float):
        return float(value)
    array = metric(value, name)
    if len(array) != 1:
        raise ValueError(f"{name} has {len(array)} values; a scalar is one")
    return float(array[0])


def to_table(rows: list[tuple[Any, ...]]) -> pa.Table:
    """The rows as a table."""
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
