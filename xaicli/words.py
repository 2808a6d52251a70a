"""Lists as people type them: values with commas between, each in double quotes where it holds a comma itself.

The command line, settings, Python's texts with commas, and the command under every page read and write them alike.
Also how text stands in a cell of CSV, and numbers in words. Standard library only.
"""

from __future__ import annotations

import math
import re
import struct
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import pairwise
from numbers import Real
from typing import Generic, TypeVar

_QUOTE = '"'
_NOT = "!"


def split(text: str) -> list[str]:
    """The values of a list: `a, b` is two, `"a,b"` one, `""` the empty one; a quote within quotes is doubled."""
    return [unquoted(item) for item in split_raw(text)]


def split_raw(text: str) -> list[str]:
    """The values of a list with their quotes; nothing between two commas is no value."""
    return [item for piece in _between(text, ",") if (item := piece.strip())]


def split_pair(text: str) -> tuple[str, str] | None:
    """NAME and VALUE of `NAME=VALUE`, each in quotes where it holds `=` or a comma; None where it is none.

    Of several `=` outside of quotes the last one counts.
    """
    pieces = list(_between(unquoted(text) if _is_quoted(text) else text, "="))
    name, value = "=".join(pieces[:-1]), pieces[-1]
    return (unquoted(name), unquoted(value)) if len(pieces) > 1 and name and value else None


def quoted(value: str, *, special: str = ",") -> str:
    """A value as it stands in a list: in quotes where it could be taken for something else."""
    plain = value == value.strip() and value and not value.startswith((_QUOTE, _NOT + _QUOTE))
    if plain and not any(char in value for char in special):
        return value
    return _QUOTE + value.replace(_QUOTE, _QUOTE * 2) + _QUOTE


def unquoted(item: str) -> str:
    """The value of one item of a list; `!"a,b"` is all but `a,b`."""
    if item.startswith(_NOT) and _is_quoted(item[1:]):
        return _NOT + unquoted(item[1:])
    return item[1:-1].replace(_QUOTE * 2, _QUOTE) if _is_quoted(item) else item


def _is_quoted(item: str) -> bool:
    """Whether an item is one quoted value from end to end."""
    return len(item) > 1 and item[0] == item[-1] == _QUOTE and _QUOTE not in item[1:-1].replace(_QUOTE * 2, "")


def _between(text: str, separator: str) -> Iterator[str]:
    """The pieces between separators that are not in quotes; a quote opens at the start of a piece, after `!` or `=`."""
    start = at = 0
    while at < len(text):
        if text[at] == _QUOTE and (text[start:at].strip() in ("", _NOT) or text[at - 1] == "="):
            closing = _closing(text, at)
            at = closing if closing is not None else at
        elif text[at] == separator:
            yield text[start:at]
            start = at + 1
        at += 1
    yield text[start:]


def _closing(text: str, opening: int) -> int | None:
    """Where the quote that opens at a place closes; None where it never does, and is a character like any other."""
    at = opening + 1
    while at < len(text):
        if text[at] == _QUOTE:
            if text[at + 1 : at + 2] != _QUOTE:
                return at
            at += 1
        at += 1
    return None


FORMULA = r"^'*[=+\-@\t\r]"
NUMBER = r"^'*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
"""Text is guarded where it is like the first and not like the second; both as Python and polars understand them."""
_TO_QUOTE = re.compile(r'[",\r\n]')
_FORMULA, _NUMBER = re.compile(FORMULA), re.compile(NUMBER.removesuffix("$") + r"\Z")


def guarded(text: str) -> str:
    """A text as a cell of comma-separated values: with an apostrophe before what a spreadsheet would run as a formula.

    That is what begins with `=`, `+`, `-`, `@`, a tab or a carriage return and is no number, and what looks like such
    text guarded already; so `unguarded` gives back every text there is.
    """
    return f"'{text}" if _needs_guard(text) else text


def unguarded(cell: str) -> str:
    """The text of a cell that `guarded` made."""
    return cell[1:] if cell.startswith("'") and _needs_guard(cell) else cell


def is_bare(cell: str) -> bool:
    """Whether a cell stands as `guarded` never leaves it, so that its file is from elsewhere."""
    return not cell.startswith("'") and _needs_guard(cell)


def csv_line(values: Iterable[object]) -> str:
    """A line of comma-separated values (RFC 4180) with its end; text is guarded, what is missing is empty.

    An empty text is quoted and what is missing is not, as polars writes them, too: the module `csv` tells the two apart
    from Python 3.12 on. A line of nothing at all would be no line to a reader.
    """
    return spelled((",".join(map(_csv_cell, values)) or '""') + "\r\n")


def _csv_cell(value: object) -> str:
    if value is None:
        return ""
    text = guarded(value) if isinstance(value, str) else str(value)
    return '"' + text.replace('"', '""') + '"' if not text or _TO_QUOTE.search(text) else text


def _needs_guard(text: str) -> bool:
    return _FORMULA.match(text) is not None and _NUMBER.match(text) is None


_Value = TypeVar("_Value")


class Names(Generic[_Value]):
    """What people call values: the exact name counts, and where there is none, one that differs by what is not seen.

    That is by blanks about it (`" cat"` of `"dog, cat".split(",")`), or by how Unicode composes its characters.

    Args:
        by_name: The value of each name.
    """

    def __init__(self, by_name: Mapping[str, _Value]) -> None:
        self._by_name = by_name
        self._loosely: dict[str, dict[_Value, None]] = {}
        for name, value in by_name.items():
            self._loosely.setdefault(self._loose(name), {})[value] = None

    def meant(self, text: str) -> tuple[_Value, ...]:
        """The value that a text means: none where no name fits, and several where it may be either of them."""
        if text in self._by_name:
            return (self._by_name[text],)
        loose = self._loose(text)
        return tuple(self._loosely.get(loose, ())) if loose else ()

    @staticmethod
    def _loose(name: str) -> str:
        return unicodedata.normalize("NFC", name).strip()


class Spelt(Enum):
    """What a file tells of how a label stands in it."""

    NAME = "name"
    """A text where numbers would be numbers, or what a labelling tool shows to people."""
    NUMBER = "number"
    EITHER = "either"
    """Text that may be both, as in CSV."""


_CLASS = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.0*)?", re.ASCII)


def class_number(text: str) -> int | None:
    """The whole number that a text is, as `7` or the `7.0` of a spreadsheet; None for `007`, `1e3`, `nan` and names."""
    found = _CLASS.fullmatch(text.strip())
    return int(found[0].partition(".")[0]) if found else None


def is_same_number(one: float, other: float) -> bool:
    """Whether two numbers are equal, or one is kept in single precision and the other rounds to it.

    What was recorded of `torch.float32` is 3.7000000476837158; a file of people says 3.7.
    """
    if one == other:
        return True
    try:
        short = [struct.unpack("f", struct.pack("f", each))[0] for each in (one, other)]
    except OverflowError:  # beyond single precision
        return False
    return bool(short[0] == short[1] and (one == short[0] or other == short[1]))


def is_row(values: Sequence[object]) -> bool:
    """Whether values are surely a row of 0 and 1, a place for each class: a set of class numbers repeats none."""
    return all(isinstance(one, Real) and one in (0, 1) for one in values) and len(values) != len(set(values))


class Classes(Generic[_Value]):
    """What people write for classes: a name, or a number. The one rule for which of them a text is.

    A number that is known to be one is the number of a class; any other text is a name first, and only where there is
    no such name a number. In CSV the name beside a number tells that it is one.

    Args:
        by_name: The class of each name.
        numbers: The classes that have a number.
        given: Names that the user has said the class of: nothing is asked of them.
    """

    def __init__(
        self, by_name: Mapping[str, _Value], numbers: Collection[_Value], given: Mapping[str, _Value] | None = None
    ) -> None:
        self._given = given or {}
        self._by_name = {**by_name, **self._given}
        self._names = Names(self._by_name)
        self._numbers = numbers

    def meant(self, text: str, spelt: Spelt, called: str = "") -> tuple[_Value, ...]:
        """The class that a text means: none where there is no such, and several where it may be any of them.

        Args:
            text: A label as it stands in a file.
            written: What the file tells of it.
            called: What it says beside that the class is called; "" where it does not.
        """
        if text in self._given:
            return (self._given[text],)
        number = self._number(text)
        is_told = spelt is Spelt.NUMBER or (called in self._by_name and (self._by_name[called],) == number)
        return number if number and is_told else self._names.meant(text) or number

    def instead(self, text: str, spelt: Spelt, called: str = "") -> tuple[_Value, ...]:
        """The class whose number a text is that was taken for the name of another, where nothing tells them apart."""
        number, meant = self._number(text), self.meant(text, spelt, called)
        is_told = spelt is not Spelt.EITHER or text in self._given
        return () if is_told or len(meant) != 1 or number == meant else number

    def _number(self, text: str) -> tuple[_Value, ...]:
        number = class_number(text)
        return tuple(one for one in self._numbers if one == number and not isinstance(one, bool | str))[:1]


def taken_as_names(found: Mapping[tuple[str, object, object], int]) -> str:
    """What is said of labels that may be names or numbers.

    Args:
        found: How often there is a text that is the name of one class and the number of another, by text and the two.
    """
    n = sum(found.values())
    told = [f"{text} (class {name}, not {number})" for text, name, number in list(found)[:5]]
    more = f" and {len(found) - 5:,} more" if len(found) > 5 else ""
    words = ("label", "is taken as a name") if n == 1 else ("labels", "are taken as names")
    return (
        f"{n:,} {words[0]} may be the name of one class and the number of another, and {words[1]}: "
        f"{', '.join(told)}{more}; Parquet and JSON tell numbers from names"
    )


def spelled(text: str) -> str:
    r"""A text with what UTF-8 cannot hold spelled out: `caf\xe9` of a file's name with a byte that is no text.

    Such bytes come as lone surrogates out of names of files and arguments; no JSON, page, table or hash can hold them.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join(_spelled(char) if "\ud800" <= char <= "\udfff" else char for char in text)
    return text


def _spelled(char: str) -> str:
    return f"\\x{ord(char) - 0xDC00:02x}" if "\udc80" <= char <= "\udcff" else f"\\u{ord(char):04x}"


def ranges(numbers: Sequence[int]) -> list[str]:
    """Ascending whole numbers as they are typed and told: `1-3` and `5` for 1, 2, 3, 5."""
    starts = [*numbers[:1], *(b for a, b in pairwise(numbers) if b != a + 1)]
    ends = [*(a for a, b in pairwise(numbers) if b != a + 1), *numbers[-1:]]
    return [str(low) if low == high else f"{low}-{high}" for low, high in zip(starts, ends, strict=True)]


_LEAST, _MOST = 1e-4, 1e9
"""Between them a number is told without an exponent."""


def distinct(numbers: Sequence[float], digits: int) -> list[str]:
    """Numbers that are compared, in words: in so many significant digits, or as many more as tell them apart.

    Beyond twelve digits nothing but rounding tells two apart, and they read the same.

    Args:
        numbers: The numbers; those that are the same read the same.
        digits: The least digits of each.
    """
    several = len(set(numbers))
    for further in range(digits, 13):
        texts = [_in_digits(number, further) for number in numbers]
        if len(set(texts)) == several:
            return texts
    return [_in_digits(number, digits) for number in numbers]


def _in_digits(number: float, digits: int) -> str:
    """A number in so many significant digits, those before the point whole, without an exponent where that is short."""
    if not math.isfinite(number) or not _LEAST <= abs(number) < _MOST:
        return f"{number:.{digits}g}"
    text = f"{number:.{max(0, digits - 1 - math.floor(math.log10(abs(number))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def names_apart(names: Mapping[_Value, str]) -> dict[_Value, str]:
    """{label: its name}; labels that share a name have their own value behind it: `crane (134)`, `crane (517)`.

    Args:
        names: {label: what it was called}.
    """
    shared = {name for name, several in Counter(names.values()).items() if several > 1}
    return {label: f"{name} ({label})" if name in shared else name for label, name in names.items()}


def in_order_apart(names: Sequence[str]) -> tuple[str, ...]:
    """The names of labels 0, 1, 2, ..., those of one name told apart as `names_apart` does."""
    return tuple(names_apart(dict(enumerate(names))).values())


def parts_between(bounds: Sequence[str], between: Sequence[str] = ()) -> list[str]:
    """What the parts are called that ascending bounds divide values into; each bound belongs to the part that it ends.

    Args:
        bounds: The bounds in words, at least one.
        between: What the parts between two bounds are called, where that is something other than the two.
    """
    inner = between or [f"{low} to {high}" for low, high in pairwise(bounds)]
    return [f"up to {bounds[0]}", *inner, f"above {bounds[-1]}"]


_REACHED = 1e-9
"""What part of a whole lies between a share and nothing or all where rounding alone keeps it from them."""


def percent(share: float | None, decimals: int = 0, *, absent: str = "–") -> str:
    """A share in words: "5 %" of 0.05; "99.96 %", never "100.0 %", of what is not quite all.

    Args:
        share: The part of a whole; negative for a difference of two.
        decimals: How many it has, and up to two more where it would else read as nothing or as all.
        absent: What is said where there is none.
    """
    return absent if share is None else _short_of(share, decimals, 100.0, 2) + " %"


def fraction(share: float, decimals: int = 2, *, further: int = 2, bounds: Sequence[float] = ()) -> str:
    """A probability, a correlation or another part of one: "0.97", and "0.9993", never "1.00", of what is less.

    Args:
        share: The number, from -1 to 1.
        decimals: How many it has.
        further: How many more it has at most where it would else read as a bound; then it is "<0.01" or ">0.99".
        bounds: Other numbers than 0, 1 and -1 that it must not read as.
    """
    return _short_of(share, decimals, 1.0, further, bounds)


def _short_of(share: float, decimals: int, whole: float, further: int, bounds: Sequence[float] = ()) -> str:
    """A part of a whole that reads as a bound only where it is one."""
    value = whole * share
    crossed = [whole * bound for bound in (0.0, 1.0, -1.0, *bounds) if abs(share - bound) > _REACHED]
    said = ""
    for places in range(decimals, decimals + further + 1):
        said = f"{value:.{places}f}"
        if float(said) not in crossed:
            return said if float(said) else said.lstrip("-")
    bound, least = float(said), 10.0 ** -(decimals + further)
    inner = bound + math.copysign(least, value - bound)
    return f"{'<' if inner > bound else '>'}{inner:.{decimals + further}f}"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def how_often(number: float) -> str:
    """How often a spread something is, in words: "12.3", and of what lies beyond any scale "1e+38"."""
    return f"{number:,.1f}" if abs(number) < 1e6 else f"{number:.1g}"
