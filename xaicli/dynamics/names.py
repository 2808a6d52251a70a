"""What labels and places are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xaicli.queries.selection import Selection
from xaicli.reader import Reader
from xaicli.vocabulary import NO_CLASS


@dataclass(frozen=True)
class LabelNames:
    """The names of labels: the user's map first, else the run's class names, else the labels themselves."""

    by_value: Mapping[Any, str]
    by_number: Sequence[str]

    @classmethod
    def of(cls, reader: Reader, selection: Selection) -> LabelNames:
        """The names of a run, overridden by those the selection gives."""
        return cls(selection.label_map, reader.manifest.label_names or ())

    def __getitem__(self, label: Any) -> str:
        if isinstance(label, list):
            return ", ".join(self[one] for one in label) or NO_CLASS
        if label in self.by_value:
            return self.by_value[label]
        if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(self.by_number):
            return self.by_number[label]
        return str(label)


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"
