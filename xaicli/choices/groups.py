"""Samples by what they share, and draws that are fair to each group."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.queries.fifths import Fifths, are_many
from xaicli.queries.names import label_text
from xaicli.vocabulary import NO_CLASS

Places = NDArray[np.intp]


@dataclass(frozen=True)
class Groups:
    """Rows by what they share.

    Attributes:
        names: What each group is called, in the order of its value.
        rows: The rows of each, ascending; a row whose value is a set of classes is in the group of each of them.
        unknown: The rows without a value, in none.
    """

    names: tuple[str, ...]
    rows: tuple[Places, ...]
    unknown: Places

    @cached_property
    def _codes(self) -> NDArray[np.int64] | None:
        """(n,) the group of each row, -1 for none; None where a row is in several."""
        size = 1 + max((int(rows.max()) for rows in (*self.rows, self.unknown) if len(rows)), default=-1)
        codes = np.full(size, -1)
        for number, rows in enumerate(self.rows):
            if (codes[rows] >= 0).any():
                return None
            codes[rows] = number
        return codes

    def counts(self, rows: Places) -> list[int]:
        """How many of some rows are in each group."""
        if self._codes is not None:
            inside = self._codes[rows]
            return [int(n) for n in np.bincount(inside[inside >= 0], minlength=len(self.rows))]
        marked = np.zeros(1 + max((int(part.max()) for part in self.rows if len(part)), default=0), np.bool_)
        marked[rows[rows < len(marked)]] = True
        return [int(marked[part].sum()) for part in self.rows]

    def first(self, order: Places, limits: Sequence[int | None]) -> Places:
        """Places in an order of rows: of each group so many of the first, group by group, no row twice.

        Args:
            order: Rows, each once.
            limits: How many of each group; None for all.
        """
        if self._codes is not None:
            codes = self._codes[order]
            # numpy sorts whole numbers of two bytes in linear time.
            is_short = len(self.rows) <= np.iinfo(np.int16).max
            by_group = np.argsort(codes.astype(np.int16) if is_short else codes, kind="stable")
            ordered = codes[by_group]
            sizes = np.bincount(ordered + 1)
            number = np.arange(len(ordered)) - (np.cumsum(sizes) - sizes)[ordered + 1]
            most = np.array([len(order) if limit is None else limit for limit in limits], np.int64)
            kept = (ordered >= 0) & (number < most[ordered])
            return by_group[kept]
        taken: dict[int, None] = {}
        for rows, limit in zip(self.rows, limits, strict=True):
            own = np.flatnonzero(np.isin(order, rows)).tolist()
            taken |= dict.fromkeys(own[:limit])
        return np.array(list(taken), np.intp)

    def like(self, order: Places, rows: Places) -> Places:
        """Places in an order of rows: as many as some rows, and of each group as many as these, else as near as can be.

        Where rows are in several groups no draw may have as many of each: one after the other is taken for the group
        that lags most behind its part of what is due by then, of its next rows the one that fits all groups best.

        Args:
            order: Rows, each once.
            rows: Rows that are each in a group.
        """
        wanted = self.counts(rows)
        if self._codes is not None:
            return self.first(order, wanted)
        place = {row: number for number, row in enumerate(order.tolist())}
        groups_of: dict[int, list[int]] = {}
        waiting = []
        for number, of_group in enumerate(self.rows):
            own = sorted(place[row] for row in of_group.tolist() if row in place)
            waiting.append(iter(own))
            for one in own:
                groups_of.setdefault(one, []).append(number)
        nearest: list[list[int]] = [[] for _ in waiting]
        due, has = np.array(wanted, np.float64) / max(1, len(rows)), np.zeros(len(wanted))
        taken: dict[int, None] = {}
        while len(taken) < min(len(rows), len(groups_of)):
            lagging = due * (len(taken) + 1) - has
            lag: list[float] = lagging.tolist()
            candidates: list[int] = []
            for number in np.argsort(-lagging, kind="stable").tolist():
                candidates = [one for one in nearest[number] if one not in taken]
                more = (one for one in waiting[number] if one not in taken)
                candidates += itertools.islice(more, _LOOKED_AT - len(candidates))
                nearest[number] = candidates
                if candidates:
                    break
            # By how much the squares of what each group lags behind change.
            changes = [sum([1 - 2 * lag[other] for other in groups_of[one]]) for one in candidates]
            best = candidates[changes.index(min(changes))]
            taken[best] = None
            has[groups_of[best]] += 1
        return np.array(list(taken), np.intp)


_LOOKED_AT = 64
"""Of so many rows in the order drawn one is taken: more would fit better, and be less of a draw."""


def draws_of(*words: object) -> np.random.RandomState:
    """Random numbers that the same words give for ever: numpy changes the streams of its other generators."""
    digest = sha256(" ".join(map(str, words)).encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, np.uint32))


def grouped(values: pl.Series, name: Callable[[Any], str] = label_text, *, by_value: bool = False) -> Groups:
    """The rows by value: each class of a set, numbers and dates of more than ten values by fifth, infinite ones apart.

    Args:
        values: (n,) one value a row, null for none.
        name: What a value is called.
        by_value: Take whole numbers and dates by value, however many there are: classes.
    """
    if values.dtype.is_float():
        values = values.fill_nan(None)
    unknown = np.flatnonzero(values.is_null().to_numpy())
    if (values.dtype.is_float() or not by_value) and are_many(values):
        return _fifths(values)
    row = pl.int_range(len(values), dtype=pl.Int64, eager=True).alias("row")
    frame = pl.DataFrame({"value": values, "row": row}).drop_nulls("value")
    if isinstance(values.dtype, pl.List):
        empty = frame.filter(pl.col("value").list.len() == 0)["row"]
        frame = frame.explode("value").drop_nulls("value").unique(["value", "row"], maintain_order=True)
    else:
        empty = row.clear()
    parts = frame.sort("value", "row", maintain_order=True).partition_by("value", maintain_order=True)
    names = [name(part["value"][0]) for part in parts]
    rows = [part["row"].to_numpy().astype(np.intp) for part in parts]
    if len(empty):
        names.append(NO_CLASS)
        rows.append(empty.to_numpy().astype(np.intp))
    return Groups(tuple(names), tuple(rows), unknown)


def _fifths(values: pl.Series) -> Groups:
    names, codes = Fifths.of(values).parted(values)
    rows = tuple(np.flatnonzero(codes == code) for code in range(len(names)))
    return Groups(names, rows, np.flatnonzero(codes == len(names)))


def draw(rows: Places, n: int, draws: np.random.RandomState) -> Places:
    """So many of some rows, each with the same chance, in the order drawn; all where there are no more."""
    return rows[draws.permutation(len(rows))[:n]]


def evenly(groups: Groups, n: int, draws: np.random.RandomState) -> Places:
    """Rows drawn so that each group has as many as any other, as far as it goes; no row twice.

    One after the other, a row is drawn for the group that has the fewest so far, of equally many for the first in an
    order that is drawn, too. A row in several groups counts for each.

    Returns:
        At most n rows, in the order drawn; fewer where all groups are used up.
    """
    waiting = [draw(rows, len(rows), draws).tolist() for rows in groups.rows]
    of_row: dict[int, list[int]] = {}
    for number, rows in enumerate(groups.rows):
        for row in rows.tolist():
            of_row.setdefault(row, []).append(number)
    has = [0] * len(waiting)
    turn = draws.permutation(len(waiting)).tolist()
    heap = sorted((0, turn[number], number) for number in range(len(waiting)))
    taken: dict[int, None] = {}
    while heap and len(taken) < n:
        n_has, _, number = heapq.heappop(heap)
        if n_has < has[number]:
            heapq.heappush(heap, (has[number], turn[number], number))
            continue
        while waiting[number] and waiting[number][-1] in taken:
            waiting[number].pop()
        if not waiting[number]:
            continue
        row = waiting[number].pop()
        taken[row] = None
        for other in of_row[row]:
            has[other] += 1
        heapq.heappush(heap, (has[number], turn[number], number))
    return np.array(list(taken), np.intp)
