"""How many rows a micro-batch takes: tried on the work itself, remembered, halved when memory runs out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xaicli.errors import XaiError

_FASTER = 0.9
_TRIALS = 3
_MOST = 4096
"""A size from a file is believed up to here; memory that runs out halves it."""


@dataclass
class Chunks:
    """The rows of a chunk: an estimate from memory, then tried larger and smaller on the work itself.

    Timing only decides in long jobs: a short one repeats bit for bit.
    """

    rows: int
    limits: tuple[int, int]
    tuning: bool = False
    spent: dict[int, list[float]] = field(default_factory=dict)

    def next(self) -> int:
        """How many rows to take now."""
        return self._candidate() if self.tuning else self.rows

    def took(self, rows: int, seconds: float) -> None:
        """Learn from a full chunk."""
        if self.tuning and rows == self._candidate():
            self.spent.setdefault(rows, []).append(seconds / rows)

    def halve(self) -> None:
        """Memory ran out.

        Raises:
            XaiError: One row is already too much.
        """
        if self.rows == 1 and not self.tuning:
            raise XaiError("out of memory with a single row", hint="use a smaller input or model, or another --device")
        self.rows, self.tuning = max(1, min(self.rows, self._candidate()) // 2), False

    def _candidate(self) -> int:
        """The size being tried: doubled while that is clearly faster, then halved likewise."""
        low, high = self.limits
        for factor in (2, 0.5):
            size = self.rows
            while True:
                if len(self.spent.get(size, ())) < _TRIALS:
                    return size
                other = int(size * factor)
                if not low <= other <= high:
                    break
                if len(self.spent.get(other, ())) < _TRIALS:
                    return other
                if min(self.spent[other]) > _FASTER * min(self.spent[size]):
                    break
                size = other
            if size != self.rows:
                self.rows = size
                break
        self.tuning = False
        return self.rows


_LEARNED: dict[str, int] = {}
"""Sizes found before: a second call on the same model and shapes repeats the first, bit for bit."""


def learned_sizes() -> dict[str, int]:
    """The chunk sizes found so far, to be kept for a later process."""
    return dict(_LEARNED)


def recall_sizes(sizes: Mapping[str, int]) -> None:
    """Use chunk sizes that an earlier process found."""
    _LEARNED.update({key: rows for key, rows in sizes.items() if 0 < rows <= _MOST})


def learned(key: str) -> int | None:
    """The size found before for a model, its shapes and device."""
    return _LEARNED.get(key)


def remember(key: str, rows: int) -> None:
    """Keep a size for the next call."""
    _LEARNED[key] = rows
