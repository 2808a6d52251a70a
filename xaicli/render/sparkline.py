"""A history in one line of text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"
_GAP = " "


def sparkline(
    values: Sequence[float | None], width: int = 16, low: float | None = None, high: float | None = None
) -> str:
    """Values as bars from lowest to highest; a gap where a value is missing or not finite.

    Args:
        values: The values in order; more than `width` of them are averaged in equal groups.
        width: The most characters.
        low, high: The range of the bars; that of the values unless given.
    """
    groups = thinned([v if v is not None and math.isfinite(v) else None for v in values], width)
    known = [v for v in groups if v is not None]
    if not known:
        return _GAP * len(groups)
    low = min(known) if low is None else low
    high = max(known) if high is None else high
    if high <= low:
        return "".join(_GAP if v is None else _BARS[3] for v in groups)
    top = len(_BARS) - 1
    levels = [None if v is None else round((v - low) / (high - low) * top) for v in groups]
    return "".join(_GAP if level is None else _BARS[min(top, max(0, level))] for level in levels)


def thinned(values: Sequence[float | None], width: int) -> Sequence[float | None]:
    """At most `width` values: means of equal groups where there are more, None for a group without any."""
    if len(values) <= width:
        return values
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    means: list[float | None] = []
    for start, end in itertools.pairwise(edges):
        known = [v for v in values[start:end] if v is not None]
        means.append(sum(known) / len(known) if known else None)
    return means
