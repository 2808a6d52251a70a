"""Labels as people write them: names and numbers of classes, sets of classes, rows of 0 and 1."""

from __future__ import annotations

import json
import re
import struct
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from numbers import Real
from typing import Any, Generic, TypeVar, cast

_Value = TypeVar("_Value")


class Spelt(Enum):
    """What a file tells of how a label stands in it."""

    NAME = "name"
    """A text where numbers would be numbers, or what a labelling tool shows to people."""
    NUMBER = "number"
    EITHER = "either"
    """Text that may be both, as in CSV."""


@dataclass(frozen=True)
class Written:
    """A label as it stands in a cell of a file, or in an object.

    Attributes:
        values: The classes, each a number or a text; none where the cell is empty.
        is_list: Whether they stand in a list, for a set of classes or as a row of 0 and 1.
        spelt: How the texts among them are spelt.
    """

    values: tuple[Any, ...]
    is_list: bool
    spelt: Spelt

    @classmethod
    def of(cls, value: Any, texts: Spelt) -> Written:
        """What a cell says.

        Args:
            value: A name or a number; a list of them, also as JSON in a text, which tells numbers from names; Label
                Studio's `{"choices": [...]}`, likewise.
            texts: How a text of this file is spelt that stands alone.
        """
        if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
            try:
                found = json.loads(value)
            except ValueError:
                found = value
            value = found if isinstance(found, list) or (isinstance(found, dict) and "choices" in found) else value
        if isinstance(value, Mapping):
            value = value.get("choices")
        if isinstance(value, list | tuple):
            return cls(tuple(value), True, Spelt.NAME)
        return cls(() if value is None or value == "" else (value,), False, texts)

    def spelt_as(self, value: Any) -> Spelt:
        """How one of the values is spelt."""
        return self.spelt if isinstance(value, str | bool) else Spelt.NUMBER

    @property
    def row(self) -> list[int] | None:
        """The places of 1 where it is surely a row of 0 and 1, a place for each class; None for a set of classes."""
        is_whole = self.is_list and bool(self.values) and is_row(self.values)
        return [place for place, is_there in enumerate(self.values) if is_there] if is_whole else None

    @property
    def may_be_row(self) -> bool:
        """Whether it names the classes 0 and 1 once each, and may as well be a place for each of two classes."""
        are_flags = self.is_list and len(self.values) == 2 and all(one in (0, 1) for one in self.values)
        return are_flags and self.values[0] != self.values[1]


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


_FLAGS = frozenset({"True", "False", "TRUE", "FALSE", "true", "false"})


class Classes(Generic[_Value]):
    """What people write for classes: a name, or a number. The one rule for which of them a text is.

    A number that is known to be one is the number of a class; any other text is a name first, and only where there is
    no such name a number. In CSV the name beside a number tells that it is one.

    Args:
        by_name: The class of each name.
        numbers: The classes that have a number.
        given: Names that the user has said the class of: nothing is asked of them.
        are_flags: Whether a label may have been True or False: `TRUE` is then the class of that name, however it is
            written, and of classes without names, which are 0 and 1, the one that it was recorded as.
    """

    def __init__(
        self,
        by_name: Mapping[str, _Value],
        numbers: Collection[_Value],
        given: Mapping[str, _Value] | None = None,
        *,
        are_flags: bool = False,
    ) -> None:
        self._flags: dict[str, tuple[_Value, ...]] = {}
        for number, word in enumerate(("false", "true")) if are_flags else ():
            named = dict.fromkeys(value for name, value in by_name.items() if name.strip().lower() == word)
            is_bare = not by_name and bool(numbers) and set(numbers) <= {0, 1}
            self._flags[word] = (cast(_Value, number),) if is_bare else tuple(named)
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
        return number if number and is_told else self._names.meant(text) or number or self._flag(text)

    def instead(self, text: str, spelt: Spelt, called: str = "") -> tuple[_Value, ...]:
        """The class whose number a text is that was taken for the name of another, where nothing tells them apart."""
        number, meant = self._number(text), self.meant(text, spelt, called)
        is_told = spelt is not Spelt.EITHER or text in self._given
        return () if is_told or len(meant) != 1 or number == meant else number

    def _flag(self, text: str) -> tuple[_Value, ...]:
        """The class that True or False is, in the spellings of Python, spreadsheets and JSON."""
        return self._flags.get(text.strip().lower(), ()) if text.strip() in _FLAGS else ()

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
