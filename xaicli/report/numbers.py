"""How numbers, names and values of any type are written for people."""

from __future__ import annotations

import itertools
import math
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

_DIGITS = 4
_NOISE = 1e-9
"""What part of two numbers lies between them where nothing does but rounding."""
_LONGEST = 1e15
"""Up to here a number is exact to its last digit before the point."""
_BRIEF, _BRIEF_DIGITS = 12, 9
"""So many characters of a number are not long; of a longer one so many digits are told."""
_SHOWN_ITEMS = 6
_FURTHER = 4
"""By so many characters a name that is cut grows until it is no other's."""
_MOST_ALIKE = 1_000
"""Among more names that begin and end alike no part is looked for that only one has."""
_HEAD = 4
"""The shortest beginning of a name that says anything."""
ARROW = " → "
"""Between a label and what was predicted: each is cut by itself, or a pair of two would read as one."""


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
        if magnitude == -1 and abs(float(text)) == 1 and 1 - abs(value) > _NOISE:
            # A share that is not quite all of it must not read as if it were.
            text = f"{value:.{-math.floor(math.log10(1 - abs(value)))}f}"
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


def exact(value: float) -> str:
    """A number with all its digits, without thousands and as a rule without an exponent: a time, a coordinate, a key.

    Left out is what rounding added alone: the last bits of a sum, and the digits of a float32 that is no float64.
    """
    if not math.isfinite(value):
        return str(value)
    text = f"{value:.15g}"
    if float(text) != value:
        narrow = (text for digits in range(1, 10) if _as_float32(text := f"{value:.{digits}g}") == value)
        text = next(narrow, text if abs(float(text) - value) <= 2 * math.ulp(value) else repr(value))
    return f"{Decimal(text):f}" if value == 0 or 1e-6 <= abs(value) < 10 * _LONGEST else text


def brief(value: float) -> str:
    """A number as `exact` writes it, or rounded where that is long: a mean to nine digits, a time to hundredths."""
    text = exact(value)
    if len(text) <= _BRIEF or not math.isfinite(value):
        return text
    before_the_point = len(f"{abs(value):.0f}") if 1 <= abs(value) < _LONGEST else 0
    return exact(float(f"{value:.{max(_BRIEF_DIGITS, before_the_point + 2)}g}"))


def _as_float32(text: str) -> float:
    """The float32 that a text stands for; infinite where it is none."""
    try:
        found: float = struct.unpack("f", struct.pack("f", float(text)))[0]
    except OverflowError:
        return math.inf
    return found


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


def cut_apart(
    names: Iterable[str], limit: int = 40, *, among: Iterable[str] = (), longest: int | None = None
) -> dict[str, str]:
    """Several names that are shown together, each short enough and not to be taken for another of them.

    What stands for a name fits no other: no other has the same beginning, end or part where "…" is what was left out.
    Where nothing so short does, a name is as long as it takes.

    Args:
        names: The names.
        limit: How long each may be.
        among: Further names, which are not shown here and for which none may be taken either.
        longest: How long a name may become that cannot be told from others in `limit` characters; from there on,
            their numbers tell names apart. None for as long as it takes.
    """
    wanted, others = list(dict.fromkeys(names)), list(dict.fromkeys(among))
    crowd = _Crowd((*wanted, *others), limit if longest is None else None)
    pairs = _with_cut_sides([name for name in (*wanted, *others) if ARROW in name], limit)
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in wanted:
        told = pairs.get(name) or crowd.short_form(name, limit, len(name) if longest is None else longest)
        number = 1
        while told in taken or told is None:
            number += 1
            told = f"{cut(name, (longest or limit) - len(str(number)) - 1)}~{number}"
            told = None if told in taken else told
        taken.add(told)
        found[name] = told
    return found


def _with_cut_sides(pairs: Sequence[str], limit: int) -> dict[str, str]:
    """Pairs that are too long, with both sides as long as they may be; without those that no such cut makes fit.

    A beginning that all sides share, in whole words, is the first to go.
    """
    long = [pair for pair in dict.fromkeys(pairs) if len(pair) > limit]
    sides = list(dict.fromkeys(side for pair in pairs for side in pair.split(ARROW)))
    if not long or len(sides) < 2:
        return {}
    shared = _same_start(sides)
    shared -= _in_word(sides[0][:shared][::-1])
    start = "…" if 1 < shared < min(map(len, sides)) else ""
    ends = {side: side[shared:] if start else side for side in sides}
    found: dict[str, str] = {}
    for room in range(limit - len(ARROW) - 2 * len(start), 2, -1):
        told = cut_apart(ends.values(), room, longest=room)
        for pair in long:
            said = ARROW.join(start + told[ends[side]].removeprefix(start) for side in pair.split(ARROW))
            # A side that is only numbered says nothing.
            if len(said) <= limit and pair not in found and "~" not in said:
                found[pair] = said
        if len(found) == len(long):
            break
    return found


def cut_among(name: str, names: Iterable[str], limit: int = 40) -> str:
    """One of several names, short enough and not to be taken for another of them."""
    return cut_apart([name], limit, among=names)[name]


class _Crowd:
    """Names among which one that is cut has to be recognised."""

    def __init__(self, names: Iterable[str], limit: int | None) -> None:
        self._names = list(dict.fromkeys(names))
        self._ends: dict[tuple[int, int], Counter[tuple[str, str]]] = {}
        self._alike: dict[tuple[int, int], dict[tuple[str, str], list[str]]] = {}
        self._joined = "\0".join(self._names)
        long = [name for name in self._names if limit is not None and len(name) > limit]
        self._same_end = _same_start([name[::-1] for name in long]) if long else None
        """How many characters all of those end with that are too long; None where there is no room to heed it."""

    def short_form(self, name: str, limit: int, longest: int) -> str | None:
        """The shortest form of a name that is no other's, and of those the one that reads best; None for none."""
        if len(name) <= limit:
            return name
        # A name that takes more than that is told whole where it may be.
        rooms = [limit] if len(name) <= longest else range(limit, longest + 1, _FURTHER)
        for room in rooms:
            if told := next(self._forms(name, room - 1), ""):
                return told
        return name if len(name) <= longest else None

    def _forms(self, name: str, room: int) -> Iterator[str]:
        """What stands for a name and no other, in so many characters beside the one for what is left out."""
        end = room // 2
        head, tail = name[: room - end], name[len(name) - end :]
        alike = self._with_ends(room, end)[head, tail]
        start, stop = _same_start(alike), len(name) - _same_start([other[::-1] for other in alike])
        if start < stop:
            # Of the word or number in which they differ all is shown.
            start -= _in_word(name[:start][::-1])
            stop += _in_word(name[stop:])
        last = len(name) - max(name.rfind(mark) for mark in "/\\")
        ends = [(room - last if room - last >= _HEAD else 0, last)] if end < last <= room else []
        ends.append((room - end, end))
        # The end tells names apart that are not here: it is left out where all have the same.
        is_end_known = self._same_end is None or len(name) - stop <= self._same_end
        if is_end_known and start < stop <= room:
            ends.append((stop, 0))
        ends += [(0, room)] if len(name) - room <= start else []
        yield from (self._without_middle(name, *pair) for pair in ends if self._is_only(name, *pair))
        if is_end_known and 0 < stop - start < room:
            # As much of what stands before it as there is room for.
            part = name[max(0, stop - room + 1) : stop]
            if not self._is_in_others(part):
                yield f"…{part}…"
        yield from self._with_three_parts(name, room - 1, start, stop, with_end=not is_end_known)
        ends = [(0, room), (room, 0)] if self._same_end is None else [(0, room)]
        yield from (self._without_middle(name, *pair) for pair in ends if self._is_only(name, *pair))

    def _with_three_parts(self, name: str, room: int, start: int, stop: int, *, with_end: bool) -> Iterator[str]:
        """The beginning, what tells it from those that begin and end alike, and where there is room the end."""
        rest = room - (stop - start)
        if start >= stop or rest < _HEAD:
            return
        for end in (rest // 2,) if with_end else (rest // 2, 0):
            head, tail = name[: rest - end], name[len(name) - end :]
            if len(head) >= start or end >= len(name) - stop:
                continue
            others, part = self._with_ends(rest, end)[head, tail], name[start:stop]
            between = (other[len(head) : len(other) - end] for other in others if len(other) >= rest)
            if len(others) <= _MOST_ALIKE and sum(part in text for text in between) == 1:
                yield f"{head}…{part}…{tail}"

    def _with_ends(self, room: int, end: int) -> dict[tuple[str, str], list[str]]:
        """The names by how they begin and end, in so many characters together."""
        if (room, end) not in self._alike:
            found: dict[tuple[str, str], list[str]] = {}
            for other in self._names:
                found.setdefault((other[: room - end], other[len(other) - end :]), []).append(other)
            self._alike[room, end] = found
        return self._alike[room, end]

    def _is_in_others(self, part: str) -> bool:
        """Whether a part of one name stands in another, too; all of them are looked through at once."""
        first = self._joined.find(part)
        end = self._joined.find("\0", first)
        return self._joined.find(part, end) >= 0 if end >= 0 else False

    @staticmethod
    def _without_middle(name: str, head: int, tail: int) -> str:
        return f"{name[:head]}…{name[len(name) - tail :]}"

    def _is_only(self, name: str, head: int, tail: int) -> bool:
        """Whether no other name begins and ends as this one does, with something between."""
        if (head, tail) not in self._ends:
            longer = (other for other in self._names if len(other) > head + tail)
            self._ends[head, tail] = Counter((other[:head], other[len(other) - tail :]) for other in longer)
        return self._ends[head, tail][name[:head], name[len(name) - tail :]] == 1


def _in_word(text: str) -> int:
    """How many letters or digits a text begins with."""
    return next((place for place, character in enumerate(text) if not character.isalnum()), len(text))


def _same_start(names: Sequence[str]) -> int:
    """How many characters all of some names begin with."""
    first, last = min(names), max(names)  # all others lie between those, and begin as both do
    pairs = enumerate(zip(first, last, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(last)))


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


def listed(names: list[str], limit: int = 5, *, whole: bool = False) -> str:
    """Names in a sentence: "a, b and c", or "a, b and 7 more"; long ones are cut, unless each is to be whole."""
    if not whole:
        short_names = cut_apart(names)
        names = [short_names[name] for name in names]
    if len(names) > limit:
        return ", ".join(names[: limit - 1]) + f" and {len(names) - limit + 1:,} more"
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else "none"


def left(whole: list[str], missing: list[str], older: Collection[str] = ()) -> str:
    """What interrupted work leaves, in a sentence.

    Args:
        whole: Those of its files that are whole.
        missing: Those that are not written.
        older: Those that were there before.
    """
    former = [name for name in missing if name in older]
    absent = [name for name in missing if name not in older]
    parts = [(whole, "whole"), (absent, "not there"), (former, "there of an earlier call")]
    return ", ".join(
        f"{listed(names, whole=True)} {'is' if len(names) == 1 else 'are'} {how}" for names, how in parts if names
    )


def in_words(value: Any, *, whole: bool = False) -> str:
    """A value of any type in a table cell.

    Args:
        value: The value.
        whole: Whether all of a list is told, and all digits of the numbers in it.
    """
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list() | tuple() if whole:
            return ", ".join(in_words(item, whole=True) for item in value)
        case list() | tuple():
            shown = ", ".join(short(i) if isinstance(i, float) else in_words(i) for i in value[:_SHOWN_ITEMS])
            return shown + (f" … {len(value):,} in all" if len(value) > _SHOWN_ITEMS else "")
        case dict():
            return "; ".join(f"{key} {in_words(item, whole=whole)}" for key, item in value.items())
        case bytes():
            return f"{len(value):,} bytes"
        case _:
            return str(value)
