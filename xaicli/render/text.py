"""Lines of text: what is safe to print, and a history as one of bars."""

from __future__ import annotations

import itertools
import math
import shlex
import unicodedata
from collections.abc import Iterable, Sequence

from xaicli.report.numbers import cut_apart
from xaicli.words import spelled

_HUGE = 4_000
"""No place shows so many characters: of a longer text its ends stand for it, before anything walks through it."""
_HIDDEN = {"Cc", "Cf", "Co", "Zl", "Zp"}


def printable(text: str, *, limit: int = 0) -> str:
    """Replace what a terminal would obey instead of show, and spell out what no UTF-8 holds.

    Args:
        text: Any text, of a label say.
        limit: The longest result in characters; 0 for no limit. What is longer loses its middle: names of samples
            often differ at the end.
    """
    if limit and len(text) > _HUGE + 2 * limit:
        text = f"{text[: limit + _HUGE // 2]}{text[-limit - _HUGE // 2 :]}"  # what is between is left out anyway
    kept = text
    if not text.isprintable():
        kept = "".join(c if c == "\n" or unicodedata.category(c) not in _HIDDEN else "�" for c in spelled(text))
    if not limit or len(kept) <= limit:
        return kept
    end = (limit - 1) // 2
    return f"{kept[: limit - 1 - end]}…{kept[len(kept) - end :]}"


def to_copy(command: str, *, on_one_line: bool = False) -> str:
    """A command as a shell takes it back from a page, with `$'...'` (bash, zsh, ksh) about what no page can show.

    Args:
        command: Words as `shlex.join` gives them.
        on_one_line: Whether a line break is written so, too, where the page would make a blank of it.
    """
    if printable(command) == command and not (on_one_line and "\n" in command):
        return command
    words = shlex.split(command)
    odd = [printable(word) != word or (on_one_line and "\n" in word) for word in words]
    return " ".join(_ansi(word) if is_odd else shlex.quote(word) for word, is_odd in zip(words, odd, strict=True))


def _ansi(word: str) -> str:
    """A word of a shell with its hidden characters in escapes, byte by byte."""
    shown = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t"}
    return "$'" + "".join(shown.get(c) or (c if printable(c) == c else _octal(c)) for c in word) + "'"


def _octal(character: str) -> str:
    # What is no UTF-8 in an argument comes as U+DC80 to U+DCFF.
    way = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"\\{byte:03o}" for byte in character.encode(errors=way))


def message(kind: str, text: str) -> str:
    """An error, hint or warning for a terminal: where text of elsewhere breaks it, what follows begins no line.

    Args:
        kind: What it is, as the line begins.
        text: What it says.
    """
    return f"{kind}: " + printable(text).replace("\n", "\n  ")


def clipped(texts: Iterable[str]) -> dict[str, str]:
    """What stands for each of some texts: itself, or the ends of a huge one, numbered where another has the same."""
    taken: set[str] = set()
    found: dict[str, str] = {}
    for text in dict.fromkeys(texts):
        short = text
        if len(text) > _HUGE:
            half, number = _HUGE // 2, 1
            short = ends = f"{text[:half]}…{text[-half + 1 :]}"
            while short in taken:
                number += 1
                short = f"{ends}~{number}"
            taken.add(short)
        found[text] = short
    return found


def told_apart(
    names: Iterable[str], limit: int, *, among: Iterable[str] = (), longest: int | None = None
) -> dict[str, str]:
    """Each of some names as it can be shown, short enough, and not to be taken for another of them.

    Args:
        names: The names, as often as they occur.
        limit: How long each may be; one that cannot be told from others in so many characters is as long as it takes.
        among: Further names, which are not shown here and for which none may be taken either.
        longest: The longest result in characters; None for as long as it takes.
    """
    wanted = list(dict.fromkeys(names))
    ends = clipped((*wanted, *among))
    shown: dict[str, str] = {}
    for text, several in _by_look(dict.fromkeys(ends.values())).items():
        # Two that differ in what cannot be shown alone are spelled out.
        shown |= {name: text if len(several) == 1 else _spelled(name) for name in several}
    told = {name: shown[ends[name]] for name in wanted}
    short = cut_apart(told.values(), limit, among=shown.values(), longest=longest)
    return {name: short[told[name]] for name in wanted}


def _by_look(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by what a terminal shows of them."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(printable(name), []).append(name)
    return found


def _spelled(text: str) -> str:
    """A text with its hidden characters as they are written in Python."""
    return "".join(c if printable(c) == c else c.encode("unicode_escape").decode() for c in text)


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
    """At most `width` values: means of equal groups where there are more, None for a gap.

    A group that lacks a value is a gap, so that one is seen where it is; where most groups lack some, only those are
    gaps that have none.
    """
    if len(values) <= width:
        return values
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    groups = [values[start:end] for start, end in itertools.pairwise(edges)]
    is_sparse = 2 * sum(None in group for group in groups) > width
    means: list[float | None] = []
    for group in groups:
        known = [v for v in group if v is not None]
        means.append(sum(known) / len(known) if known and (is_sparse or len(known) == len(group)) else None)
    return means
