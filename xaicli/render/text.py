"""Lines of text: what is safe to print, and a history as one of bars."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Sequence

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
    """Each of some names short enough for a picture, and still another than the others where it is another.

    Long names lose their middle; where that leaves two the same, they lose what all of them begin and end with.

    Args:
        names: The names, as often as they occur.
        limit: The longest result in characters.
    """
    short = {name: printable(name, limit=limit) for name in names}
    long = [name for name in short if short[name] != name]
    if len({short[name] for name in long}) == len(long):
        return short
    alike = [len(set(last)) == 1 for last in zip(*(name[::-1] for name in long), strict=False)]
    end = alike.index(False) if False in alike else 0
    heads = {name: printable(name[: len(name) - end]) for name in long}
    return short | {n: f"{head}…" if len(head) < limit else "…" + head[1 - limit :] for n, head in heads.items()}


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
