"""Lines of text: what is safe to print, and a history as one of bars."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Sequence

from xaicli.report.numbers import cut_apart

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def printable(text: str, *, limit: int = 0) -> str:
    """Replace what a terminal would obey instead of show.

    Args:
        text: Any text, of a label say.
        limit: The longest result in characters; 0 for no limit. What is longer loses its middle: names of samples
            often differ at the end.
    """
    kept = text
    if not text.isprintable():
        kept = "".join(c if c == "\n" or unicodedata.category(c) not in _HIDDEN else "�" for c in text)
    if not limit or len(kept) <= limit:
        return kept
    end = (limit - 1) // 2
    return f"{kept[: limit - 1 - end]}…{kept[len(kept) - end :]}"


def told_apart(names: Sequence[str], limit: int) -> dict[str, str]:
    """Each of some names as it can be shown and short enough, and still another than the others where it is another.

    Args:
        names: The names, as often as they occur.
        limit: The longest result in characters.
    """
    shown = {name: printable(name) for name in dict.fromkeys(names)}
    seen: dict[str, int] = {}
    for name, text in shown.items():
        # Two that differ in what cannot be shown alone.
        seen[text] = seen.get(text, 0) + 1
        shown[name] = text if seen[text] == 1 else f"{text}~{seen[text]}"
    short = cut_apart(shown.values(), limit)
    return {name: short[text] for name, text in shown.items()}


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
    groups = averaged([v if v is not None and math.isfinite(v) else None for v in values], width)
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


def averaged(values: Sequence[float | None], width: int) -> Sequence[float | None]:
    """At most `width` values: means of equal groups where there are more, None for a group without any."""
    if len(values) <= width:
        return values
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    means: list[float | None] = []
    for start, end in itertools.pairwise(edges):
        known = [v for v in values[start:end] if v is not None]
        means.append(sum(known) / len(known) if known else None)
    return means
