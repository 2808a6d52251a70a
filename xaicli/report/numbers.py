"""How numbers, names and values of any type are written for people."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

_DIGITS = 4
_NOISE = 1e-9
"""What part of two numbers lies between them where nothing does but rounding."""
_LONGEST = 1e15
"""Up to here a number is exact to its last digit before the point."""
_SHOWN_ITEMS = 6


def short(value: float | int | None, digits: int = _DIGITS, *, apart: float = 0.0) -> str:
    """A number in few significant digits, without an exponent where that stays short.

    A missing value is an en dash, a non-finite one its name.

    Args:
        value: The number.
        digits: How many digits it has at most, unless it takes more of them to tell it from its neighbours.
        apart: How far the numbers beside it lie apart; it is given to a tenth of that at least.
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
    magnitude = math.floor(math.log10(abs(value)))
    finest = math.floor(math.log10(apart)) - 1 if _NOISE * abs(value) < apart < math.inf else magnitude
    if 1e-4 <= abs(value) < 1e6 or (finest <= 0 and 1e6 <= abs(value) < _LONGEST):
        decimals = max(0, digits - 1 - magnitude, -finest)
        text = f"{value:,.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.{max(digits - 2, magnitude - finest)}e}"


def shorts(values: Sequence[float | int | None], digits: int = _DIGITS, *, apart: float = math.inf) -> list[str]:
    """Numbers that are shown together, as `short` writes each, and no two of them alike that are not.

    All are given to a tenth of what lies between the lowest and the highest; those that still read alike get the
    further digits that tell them apart.

    Args:
        values: The numbers.
        digits: How many digits each has at most where that tells it from the others.
        apart: How far other numbers beside them lie apart, where that is less.
    """
    # Of numbers that are all the same, those beside them decide alone.
    apart = min(apart, spread(values) or math.inf)
    said = [short(value, digits, apart=apart) for value in values]
    alike: dict[str, set[float]] = {}
    for text, value in zip(said, values, strict=True):
        if isinstance(value, float) and math.isfinite(value):
            alike.setdefault(text, set()).add(value)
    told = {
        value: text
        for several in alike.values()
        if len(several) > 1
        for value, text in _with_further_digits(several, digits).items()
    }
    return [
        told.get(value, text) if isinstance(value, float) else text for value, text in zip(values, said, strict=True)
    ]


def column(values: Sequence[Any], apart: float = math.inf) -> list[str]:
    """The cells of a column of numbers, as `shorts` writes them; what is no number, a date say, as it is."""
    return _cells(values, (int, float, type(None)), apart)


def texts(values: Sequence[Any]) -> list[str]:
    """The cells of a column of texts; the numbers among them, labels say, as `shorts` writes them."""
    filled = ["" if value is None else value for value in values]
    return _cells(filled, (float,), math.inf)


def _cells(values: Sequence[Any], numbers: tuple[type, ...], apart: float) -> list[str]:
    told: list[Any] = [value for value in values if isinstance(value, numbers)]
    said = iter(shorts(told, apart=apart))
    return [next(said) if isinstance(value, numbers) else str(value) for value in values]


def spread(values: Iterable[float | int | None]) -> float:
    """How far the finite ones of some numbers lie apart; 0.0 of fewer than two."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(max(known) - min(known)) if known else 0.0


def _with_further_digits(values: Iterable[float], digits: int) -> dict[float, str]:
    """Different numbers with the digits that tell each from its neighbours."""
    ordered = sorted(values)
    gaps = [b - a for a, b in itertools.pairwise(ordered)]
    nearest = [min(pair) for pair in zip([math.inf, *gaps], [*gaps, math.inf], strict=True)]
    pairs = zip(ordered, nearest, strict=True)
    return {value: short(value, digits, apart=gap) for value, gap in pairs if gap > _NOISE * abs(value)}


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
    """Several names that are shown together, each short enough and no two of them alike.

    Those that would read alike without their middle keep the part in which they differ.
    """
    found = {name: cut(name, limit) for name in names}
    alike: dict[str, list[str]] = {}
    for name, said in found.items():
        alike.setdefault(said, []).append(name)
    taken = {said for said, several in alike.items() if len(several) == 1}
    for said, several in alike.items():
        if len(several) == 1:
            continue
        for name, told in _windows(several, limit).items():
            # Where they differ in many places, their numbers tell them apart.
            number = 1
            while told in taken:
                number += 1
                told = f"{cut(said, limit - len(str(number)) - 1)}~{number}"
            taken.add(told)
            found[name] = told
    return found


def cut_among(name: str, names: Iterable[str], limit: int = 40) -> str:
    """One of several names, short enough and not to be taken for another of them."""
    return cut_apart((name, *names), limit)[name]


def _windows(names: Sequence[str], limit: int) -> dict[str, str]:
    """Each name without what all of them end with, and of its beginning as much as there is room for."""
    begin = _same_start(names)
    end = min(_same_start([name[::-1] for name in names]), min(map(len, names)) - begin)
    found = {}
    for name in names:
        head = name[: len(name) - end]
        if len(head) < limit:
            found[name] = head + "…" * (end > 0)
        elif len(head) - begin < limit:
            found[name] = "…" + head[1 - limit :]
        else:
            found[name] = "…" + cut(head[begin:], limit - 1)
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
    short_names = cut_apart(names)
    names = [short_names[name] for name in names]
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
