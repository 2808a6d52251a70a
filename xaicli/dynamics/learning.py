"""What each sample learned, and when: counts of right answers, and the epochs and steps of its observations."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.dynamics.arrays import (
    MANY,
    NO_EPOCH,
    Array,
    GrowingArrays,
    Rows,
    Where,
    as_epochs,
    as_series,
    blocks,
    part,
    stored_epoch,
)


class Times:
    """How often, and at which epochs, a sample was observed.

    The time of an observation is counted from the sample's first epoch, in whole numbers: nothing is rounded. As long
    as every epoch holds all samples, one record stands for all of them.
    """

    def __init__(self) -> None:
        self._n = self._sum = self._squares = 0
        self._first = int(NO_EPOCH)
        self._last = int(NO_EPOCH)
        self._slots = 0
        """The samples that share the record."""
        self._reached = 0
        """Those of the samples 0..n-1 that the epoch has brought so far."""
        self._epoch: int | None = None
        self._capacity = 0
        self._each: GrowingArrays | None = None
        """A record a sample, once they differ."""

    def copy(self) -> Times:
        """The same observations so far, to be continued on their own."""
        return copy.deepcopy(self)

    def grow(self, size: int) -> None:
        """Make room for `size` slots."""
        self._capacity = max(size, self._capacity)
        if self._each is not None:
            self._each.grow(self._capacity)

    def update(self, where: Where, epoch: int) -> NDArray[np.float64] | float:
        """Count an observation at an epoch not before the last one.

        Returns:
            The epochs since each sample's first one, aligned with `where`; one number where they are equal.
        """
        if self._each is None and not self._continues(where, epoch):
            self._tell_apart()
        if self._each is None:
            assert isinstance(where, slice)
            self._epoch, self._reached = epoch, where.stop
            return float(epoch - self._first) if self._n else 0.0
        return _observe(self._each, where, epoch)

    def complete(self, n_slots: int) -> None:
        """Say that an epoch is over.

        Args:
            n_slots: How many samples there are.
        """
        if self._each is None and self._epoch is not None:
            if self._reached == n_slots and (self._n == 0 or self._slots == n_slots):
                self._share(self._epoch, n_slots)
            else:
                self._tell_apart()

    def _continues(self, where: Where, epoch: int) -> bool:
        """Whether these are the samples that come next when all come in order."""
        return (
            isinstance(where, slice)
            and where.start == self._reached
            and self._epoch in (None, epoch)
            and (self._n == 0 or where.stop <= self._slots)
        )

    def _share(self, epoch: int, n_slots: int) -> None:
        if self._n == 0:
            self._first, self._slots = epoch, n_slots
        time = epoch - self._first
        self._n += 1
        self._last = epoch
        self._sum += time
        self._squares += time * time
        self._epoch, self._reached = None, 0

    def _tell_apart(self) -> None:
        """Give every sample its own record, with what the running epoch has brought so far."""
        each = GrowingArrays(n=np.int32(0), first=NO_EPOCH, last=NO_EPOCH, sum=np.int64(0), squares=np.int64(0))
        each.grow(self._capacity)
        together = {"n": self._n, "first": self._first, "last": self._last, "sum": self._sum, "squares": self._squares}
        for name, value in together.items():
            each[name][: self._slots] = value
        if self._epoch is not None and self._reached:
            _observe(each, slice(0, self._reached), self._epoch)
        self._each = each

    @property
    def n(self) -> NDArray[np.int64]:
        """Observations by slot."""
        return self._by_slot("n", self._n)

    @property
    def last(self) -> NDArray[np.int64]:
        """Last epoch by slot."""
        return self._by_slot("last", self._last)

    def observed(self, where: Where) -> NDArray[np.int32]:
        """How often some samples were observed, with the running epoch's observation that was last counted."""
        if self._each is None:
            assert isinstance(where, slice)
            return np.broadcast_to(np.int32(self._n + 1), where.stop - where.start)
        found: NDArray[np.int32] = self._each["n"][where]
        return found

    def totals(self, block: slice) -> NDArray[np.float64]:
        """The sum of the times of some slots; exact."""
        return np.asarray(self._by_slot("sum", self._sum)[block], np.float64)

    def squared_distances(self, block: slice) -> NDArray[np.float64]:
        """n times the sum of squared distances to the mean time, of some slots; exact."""
        total = self._by_slot("sum", self._sum)[block]
        return np.asarray(self.n[block] * self._by_slot("squares", self._squares)[block] - total * total, np.float64)

    def _by_slot(self, name: str, shared: int) -> NDArray[np.int64]:
        if self._each is None:
            return np.broadcast_to(np.int64(shared), self._capacity)
        return self._each[name]


def _observe(each: GrowingArrays, where: Where, epoch: int) -> NDArray[np.float64]:
    """Count an observation of each slot; the epochs since each one's first."""
    first = each["first"][where]
    first[first == NO_EPOCH] = epoch
    each["first"][where] = first
    each["last"][where] = epoch
    each["n"][where] += 1
    time = np.int64(epoch) - first
    each["sum"][where] += time
    each["squares"][where] += time * time
    return time.astype(np.float64)


class Learning:
    """When a sample's prediction was right: forgetting after Toneva et al. 2019, correctness after Swayamdipta 2020.

    Args:
        most: No sample is observed more often.
        furthest: No epoch is further from 0.
    """

    def __init__(self, most: int = MANY, furthest: int = MANY) -> None:
        self._none = none = stored_epoch(furthest)
        count = np.min_scalar_type(-most).type(0)
        self._state = GrowingArrays(
            before=np.int8(-1),
            correctness=count,
            forgetting=count,
            first_learned=none,
            right_since=none,
        )

    def __getitem__(self, name: str) -> Array:
        return self._state[name]

    def grow(self, size: int) -> None:
        self._state.grow(size)

    def update(self, where: Where, correct: NDArray[np.bool_], epoch: int) -> None:
        """Add whether each slot's prediction, (n,), was right at an epoch not before the last one."""
        state = self._state
        before = state["before"][where]
        state["correctness"][where] += correct
        state["forgetting"][where] += (before == 1) & ~correct
        turned = correct & (before != 1)
        if turned.any():
            since = state["right_since"][where]
            since[turned] = epoch
            state["right_since"][where] = since
            learned = state["first_learned"][where]
            learned[turned & (learned == self._none)] = epoch
            state["first_learned"][where] = learned
        state["before"][where] = correct

    def results(self) -> dict[str, Array]:
        """By slot: `correctness`, `forgetting`, `first_learned`, `learned_for_good` (NO_EPOCH for none), int32;
        `never_learned` and `judged`, whether there was any observation at all, bool. The state is used up.
        """
        state = self._state
        before, for_good = state.pop("before"), state.pop("right_since")
        for_good[before != 1] = self._none
        correctness = state.pop("correctness").astype(np.int32)
        return {
            "correctness": correctness,
            "forgetting": state.pop("forgetting").astype(np.int32),
            "never_learned": correctness == 0,
            "first_learned": as_epochs(state.pop("first_learned")),
            "learned_for_good": as_epochs(for_good),
            "judged": before >= 0,
        }


class LastLabel:
    """The label of each sample's last row, missing where it is there: small whole numbers as they are, all others by a
    code.
    """

    def __init__(self) -> None:
        self._state = GrowingArrays(label=NO_EPOCH)
        self._codes: dict[Any, int] | None = None
        self._values: list[pl.Series] = []

    def grow(self, size: int) -> None:
        self._state.grow(size)

    def update(self, rows: Rows, label: pl.Series) -> None:
        codes = self._coded(label).to_numpy()
        for block in blocks(rows.n):
            self._state["label"][part(rows.where, block)] = rows.of(codes, block)

    def _coded(self, label: pl.Series) -> pl.Series:
        if label.dtype == pl.Int32 and self._codes is None:
            return label.fill_null(int(NO_EPOCH)) if label.null_count() else label
        if self._codes is None:
            self._codes = {}
        named = _named(label)
        fresh = pl.DataFrame({"name": named, "value": label}).drop_nulls().unique("name")
        fresh = fresh.filter(~pl.col("name").is_in(list(self._codes)))
        self._codes |= {name: len(self._codes) + number for number, name in enumerate(fresh["name"])}
        self._values.append(fresh["value"])
        known = pl.Series(list(self._codes), dtype=named.dtype)
        places = pl.Series(list(self._codes.values()), dtype=pl.Int32)
        if len(known) == 0:
            return pl.repeat(int(NO_EPOCH), len(label), dtype=pl.Int32, eager=True)
        return named.replace_strict(known, places, default=int(NO_EPOCH), return_dtype=pl.Int32)

    def series(self, n: int) -> pl.Series:
        """(n,) labels by slot as they were recorded, null for none."""
        codes = as_series("label", self._state.pop("label")[:n])
        if self._codes is None:
            return codes
        return pl.concat(self._values).gather(codes).alias("label")


def _named(label: pl.Series) -> pl.Series:
    """The labels as something that can be looked up: sets of classes as text."""
    if not isinstance(label.dtype, pl.List):
        return label
    return pl.Series(
        label.name, label.to_frame().select(pl.first().cast(pl.List(pl.String)).list.join(" ")).to_series()
    )
