"""How numbers, names and values of any type are written for people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

_DIGITS = 4
_SHOWN_ITEMS = 6


def short(value: float | int | None, digits: int = _DIGITS) -> str:
    """A number in at most `digits` significant digits, without an exponent where that stays short.

    A missing value is an en dash, a non-finite one its name.
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.{digits - 2}e}"


def count(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 sample", "1,797 samples"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def cut(text: str, limit: int = 40) -> str:
    """A name of elsewhere short enough for a sentence or a card; JSON and CSV have all of it.

    It loses its middle: names often differ at the end.
    """
    if len(text) <= limit:
        return text
    end = (limit - 1) // 2
    return f"{text[: limit - 1 - end]}…{text[len(text) - end :]}"


def cut_apart(names: Iterable[str], limit: int = 40) -> dict[str, str]:
    """Several names, each cut and still another than the others: what all of them begin and end with goes first."""
    found = {name: cut(name, limit) for name in names}
    long = [name for name, short_name in found.items() if short_name != name]
    if len({found[name] for name in long}) == len(long):
        return found
    begin = _same_start(long)
    end = min(_same_start([name[::-1] for name in long]), min(map(len, long)) - begin)
    rest = {name: name[begin : len(name) - end] for name in long}
    for name, middle in rest.items():
        room = (limit - 2 - len(middle)) // 2
        head, tail = name[max(begin - room, 0) : begin], name[len(name) - end :][:room]
        found[name] = f"…{head}{middle}{tail}…" if room >= 0 else f"…{cut(middle, limit - 2)}…"
    return found


def _same_start(names: Sequence[str]) -> int:
    """How many characters all of some names begin with."""
    columns = enumerate(zip(*names, strict=False))
    return next((place for place, column in columns if len(set(column)) > 1), min(map(len, names)))


def sample_name(sample_id: int | str) -> str:
    """A sample in a sentence, a legend or a heading: a number, or digits alone, with its sign, a text as it is."""
    return f"#{sample_id}" if str(sample_id).isdecimal() or not isinstance(sample_id, str) else sample_id


def shortened(text: str, limit: int) -> str:
    """The beginning of a sentence of elsewhere."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def first_parts(reason: str, limit: int) -> str:
    """As many parts of a reason, which semicolons divide, as fit; of a first one that does not, its beginning."""
    kept, *parts = reason.split("; ")
    for part in parts:
        if len(kept) + len(part) + 2 > limit:
            break
        kept += f"; {part}"
    return shortened(kept, limit)


def listed(names: list[str], limit: int = 5) -> str:
    """Names in a sentence: "a, b and c", or "a, b and 7 more"."""
    names = [cut(name) for name in names]
    if len(names) > limit:
        return ", ".join(names[: limit - 1]) + f" and {len(names) - limit + 1:,} more"
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else "none"


def in_words(value: Any) -> str:
    """A value of any type in a table cell."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list() | tuple():
            shown = ", ".join(in_words(item) for item in value[:_SHOWN_ITEMS])
            return shown + (f" … {len(value):,} in all" if len(value) > _SHOWN_ITEMS else "")
        case dict():
            return "; ".join(f"{key} {in_words(item)}" for key, item in value.items())
        case bytes():
            return f"{len(value):,} bytes"
        case _:
            return str(value)
