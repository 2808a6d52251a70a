"""Per-step values of the whole run: what `run.log` was given, as rows."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xaicli.files import for_arrow
from xaicli.layout import PartName, RunLayout
from xaicli.recorder import columns

AXES = ("step", "iteration", "epoch")
"""The keys that give the time axis, the finest first."""
COUNTER = "counter"
"""The axis of scalars that have none."""


@dataclass(frozen=True)
class Moment:
    """When and where scalars were logged, as far as they do not say so themselves.

    Attributes:
        mode: The mode.
        ds_id: The dataset.
        epoch: The epoch; None before the first.
        step: The training step; None where the run counts none.
        count: The number of the call, where nothing else is known.
        attempt: Whose they are.
        rank: Likewise.
    """

    mode: str
    ds_id: str
    epoch: int | None
    step: int | None
    count: int
    attempt: int
    rank: int


def scalar_rows(
    scalars: Mapping[str, Any],
    moment: Moment,
    refuse: Callable[[str, str], None],
    alter: Callable[[str, str], None],
) -> list[tuple[Any, ...]]:
    """One row a scalar.

    Args:
        scalars: {key: number}; of the keys in `AXES` the finest becomes the time axis, `epoch` the epoch too. An epoch
            that is no whole number is the one it is in, and no axis.
        moment: What holds otherwise: the training step, or the counter.
        refuse: Told of a scalar that is left out, or a time with nothing beside it, and why.
        alter: Told of a whole number that double precision does not hold: the next one is kept; and of a time that is
            none, without which the scalars are kept.
    """
    times, odd = _times(scalars)
    rows = []
    values = {}
    for key, value in scalars.items():
        if key not in AXES:
            try:
                _check_text(str(key))
                values[str(key)] = number = _number(value, str(key))
                if (whole := _whole(value)) is not None and number != whole:  # Python compares the two exactly
                    alter(str(key), f"{key} {whole} is beyond 2^53: it is rounded to double precision")
            except ValueError as error:
                refuse(str(key), str(error))
    for axis, why in odd.items():
        if values:
            alter(axis, f"{why}: the scalars beside it are kept without it")
        else:
            refuse(axis, why)
    if not values:
        return []
    if times:
        axis, step = next(iter(times.items()))
    elif moment.step is not None:
        axis, step = "step", moment.step
    else:
        axis, step = COUNTER, moment.count
    where = (moment.mode, moment.ds_id, times.get("epoch", moment.epoch), step, axis)
    for key, value in values.items():
        rows.append((key, *where, value, moment.attempt, moment.rank))
    return rows


def _times(scalars: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, str]]:
    """The times among scalars, the finest first, and why others are none."""
    times: dict[str, int] = {}
    odd: dict[str, str] = {}
    for axis in AXES:
        if scalars.get(axis) is not None:
            try:
                times[axis] = _time(scalars[axis], axis, in_part=axis == "epoch" and bool(times))
            except ValueError as error:
                odd[axis] = str(error)
    return times, odd


def _time(value: Any, axis: str, *, in_part: bool) -> int:
    if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
        raise ValueError(f"{axis} {value} is a truth value and no number")
    number = _number(value, axis)
    bits = 31 if axis == "epoch" else 63
    if not math.isfinite(number) or (number != math.floor(number) and not in_part):
        raise ValueError(f"{axis} {value} is no whole number")
    if abs(number) >= 2**bits:
        raise ValueError(f"{axis} {value} is beyond {bits + 1} bits")
    return int(value) if isinstance(value, int) else math.floor(number)


def _number(value: Any, name: str) -> float:
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError as error:
            raise ValueError(f"{name} is beyond double precision") from error
    if value is None:
        raise ValueError(f"{name} is None")
    if isinstance(value, Mapping):
        raise ValueError(
            f"{name} is a mapping; a scalar is one number, under a name such as '{name}/{next(iter(value), 'x')}'"
        )
    array = columns.metric(value, name)
    if len(array) != 1:
        raise ValueError(f"{name} has {len(array)} values; a scalar is one")
    return float(array[0])


def _whole(value: Any) -> int | None:
    """A whole number as what it is; None for any other."""
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return None
    array = columns.to_array(value, "")
    return int(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "iu" else None


def _check_text(key: str) -> None:
    key.encode()  # a lone surrogate has no UTF-8 form, and is a ValueError


def counted(layout: RunLayout, attempt: int) -> int:
    """How far earlier attempts' counter of scalars without a time has come; 0 without any."""
    last = -1
    for path in layout.scalars.glob("*.parquet"):
        part = PartName.parse(path.name)
        if part is None or part.attempt >= attempt:
            continue
        # A damaged file says nothing here, and is named by readers.
        with contextlib.suppress(OSError, pa.ArrowException, LookupError, TypeError):
            table = pq.read_table(for_arrow(path), columns=["axis", "step"])
            steps = table.filter(pc.equal(table["axis"], COUNTER))["step"]
            last = max(last, pc.max(steps).as_py() if len(steps) else -1)
    return last + 1
