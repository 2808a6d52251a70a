"""Curves of scalars over time, ready to be drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from xaicli.queries.recorded import VALUE
from xaicli.queries.scalars import CURVE, HIGH, LOW, SMOOTHED, smooth
from xaicli.vocabulary import STEP

POINTS = 400
"""The most points of a line that are drawn, about."""


@dataclass(frozen=True)
class Curve:
    """One line over time; `smoothed` is `value` without smoothing."""

    what: dict[str, str]
    """What tells it apart: the values of `CURVE`."""
    step: tuple[int, ...]
    value: tuple[float | None, ...]
    smoothed: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]

    @property
    def known(self) -> list[tuple[int, float]]:
        """The finite (step, value) pairs."""
        return [(step, value) for step, value in zip(self.step, self.value, strict=True) if value is not None]

    @property
    def has_band(self) -> bool:
        """Whether anything lies between a low and a high value."""
        return any(low is not None for low in self.low)


def curves(rows: pl.DataFrame, smoothing: float = 0.0) -> Iterator[Curve]:
    """The rows curve by curve, in their order."""
    wanted = [VALUE, SMOOTHED if SMOOTHED in rows.columns else VALUE, LOW, HIGH]
    for key, part in rows.group_by(CURVE, maintain_order=True):
        if smoothing:
            part = part.with_columns(smooth(name, smoothing).alias(name) for name in (LOW, HIGH))
        value, smoothed, low, high = (_finite(part[name]) for name in wanted)
        what = dict(zip(CURVE, (str(item) for item in key), strict=True))
        yield Curve(what, tuple(part[STEP].to_list()), value, smoothed, low, high)


def thinned(y: Sequence[float | None], most: int = POINTS) -> list[int]:
    """Which points of a long line to draw: the lowest and highest of each stretch, so that no spike is lost."""
    if len(y) <= most:
        return list(range(len(y)))
    stretches = most // 2
    kept: set[int] = {0, len(y) - 1}
    for number in range(stretches):
        inside = range(number * len(y) // stretches, (number + 1) * len(y) // stretches)
        known = [index for index in inside if y[index] is not None]
        if known:
            kept |= {min(known, key=lambda i: y[i] or 0.0), max(known, key=lambda i: y[i] or 0.0)}
        elif inside:
            kept.add(inside[0])
    return sorted(kept)


def _finite(column: pl.Series) -> tuple[float | None, ...]:
    return tuple(value if value is not None and math.isfinite(value) else None for value in column.to_list())
