"""What a collator does with its samples: which row of a batch is of which of them, and the ids that it would lose."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

import torch

from xaicli.integrations.hints import KINDS, LENGTHS, hints
from xaicli.integrations.identity import ID_KEYS, as_id, by_parts, is_float, may_be_ids
from xaicli.integrations.order import (
    Order,
    are_like_samples,
    are_places_first,
    has_places_first,
    order_in,
    order_of_same,
    rows_made,
    with_samples_first,
)
from xaicli.state.randomness import capture, restore

REORDERED = (
    "the collator gives the samples in another order than it was given them, and what stands in a batch does not tell "
    "whose row is whose: let it return the ids as well"
)
"""What stands in a batch for its ids, where they cannot be told."""

OTHER_COUNT = (
    "the collator makes more or fewer rows than it was given samples, and what stands in a batch does not tell whose "
    "row is whose: let it return the ids of those it takes as well"
)
"""The same, where it leaves samples out or repeats them."""

UNSHOWN = (
    "nothing in a batch of the collator shows in which order it gives the samples, and keeps_order=False says that "
    "they may be in another: let the dataset have a column sample_id and the collator return it"
)
"""The same, where nothing says it and the caller does not want it assumed."""

ASSUMED = (
    "nothing in a batch of the collator{name} shows in which order it gives the samples: they are taken to be in the "
    "order that they were given in; let the collator return sample_id to have it known, or say XaiCallback(..., "
    "keeps_order=True) that it is so, or keeps_order=False to leave such rows out"
)
"""What is said once where the order is assumed."""

WRONGLY = (
    "the collator{name}, whose order was taken for that of its samples where nothing showed it, gives another order in "
    "other batches, or seems to: {rows} of batches before may stand under the ids of others"
)
"""What is said where that was wrong."""

_KEEPING = ("transformers", "torch")
"""Packages whose own collators give the samples in the order they are given them."""

_WORKERS = 65
"""So many processes, the training among them, count apart."""


class Unknown(StrEnum):
    """Why it is not known which sample each row of a batch is of."""

    OTHER_COUNT = "more or fewer rows than samples"
    REORDERED = "another order"
    UNSHOWN = "an order that nothing shows"


WORDS = {Unknown.OTHER_COUNT: OTHER_COUNT, Unknown.REORDERED: REORDERED, Unknown.UNSHOWN: UNSHOWN}
"""What is said of it to those whose dataset has ids."""


@dataclass(frozen=True)
class NumberedRows:
    """A dataset of dicts with each row's number beside it, under a name of its own, or its id where that is known.

    Attributes:
        rows: The dataset.
        key: The name.
        ids: Each row's id; None for its number.
    """

    rows: Any
    key: str
    ids: Sequence[Any] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        row = self.rows[index]
        said = int(index) if self.ids is None else self.ids[index]
        return {**row, self.key: said} if isinstance(row, Mapping) else row


class SeenOrders:
    """What a collator was seen to do with the samples of one set, in memory that a loader's workers share.

    Args:
        collate: The collator, whose name is told.
    """

    _FIRST = ("samples first", "places first")
    _WHAT = (
        "another order",
        "its own",
        *_FIRST,
        *(f"{hint} {answer}" for hint in (LENGTHS, KINDS) for answer in (True, False)),
    )

    def __init__(self, collate: Any = None) -> None:
        name = getattr(collate, "__name__", type(collate).__name__)
        self._name = "" if collate is None or name == "<lambda>" else f" {name}"
        self._flags: torch.Tensor = torch.zeros(len(self._WHAT), dtype=torch.uint8)
        self._flags.share_memory_()  # type: ignore[no-untyped-call]
        self._assumed: torch.Tensor = torch.zeros(_WORKERS, dtype=torch.int64)
        self._assumed.share_memory_()  # type: ignore[no-untyped-call]

    def note(self, what: str) -> None:
        """It was seen to give "another order", or "its own"."""
        self._flags[self._WHAT.index(what)] = 1

    def assume(self, rows: int) -> None:
        """These rows are taken to be in the samples' order."""
        worker = torch.utils.data.get_worker_info()
        self._assumed[0 if worker is None else 1 + worker.id % (_WORKERS - 1)] += rows  # each worker counts its own

    def has(self, what: str) -> bool:
        """Whether that was noted."""
        return bool(self._flags[self._WHAT.index(what)])

    def look(self, samples: Sequence[Any], batch: Any) -> str | None:
        """The same as `doubt`, this batch looked at as well."""
        for hint, answer in hints(samples, batch).items():
            if answer is not None:
                self.note(f"{hint} {answer}")
        return self.doubt

    @property
    def doubt(self) -> str | None:
        """What speaks against the order of the batches looked at; None where nothing does."""
        return next((h for h in (LENGTHS, KINDS) if self.has(f"{h} {True}") and not self.has(f"{h} {False}")), None)

    @property
    def notes(self) -> list[tuple[str, Any]]:
        """What is to be said of it once, each with what it is known by: what was assumed, and that this was wrong."""
        if not (assumed := int(self._assumed.sum())):
            return []
        line = ASSUMED.format(name=self._name)
        if not (self.is_other or self.doubt is not None):
            return [(line, line)]
        return [(line, line), (WRONGLY.format(name=self._name, rows=rows_said(assumed)), id(self))]

    @property
    def is_other(self) -> bool:
        """Whether it gave another order."""
        return self.has("another order")

    @property
    def puts_places_first(self) -> bool | None:
        """Whether it makes batches with the places of its samples before these, where one with as many showed it."""
        return next((what == self._FIRST[1] for what in self._FIRST if self.has(what)), None)

    @property
    def is_known(self) -> bool:
        """Whether some batch showed its order."""
        return self.has("its own")

    def order_in(self, samples: Sequence[Any], batch: Any, own: Sequence[Any] | None = None) -> Order:
        """Which sample each row of a batch was made of, remembered for those that do not show it.

        Args:
            samples: What the collator was given.
            batch: What it made.
            own: As of `order_of_same`.
        """
        n, order = len(samples), order_of_same(samples, batch, own)
        if order is None:
            are_samples = are_like_samples(samples, batch)
            parts = by_parts(batch, are_samples=are_samples)
            batch = parts.batch if parts.rows is not None else self._samples_first(samples, batch)
            order = replace(order_in(samples, batch, parts.rows), rows=parts.rows, are_samples=are_samples)
            if order.places and batch is not parts.batch and self.puts_places_first is None:
                self.note(self._FIRST[1])
        is_whole = (rows_made(batch, n) if order.rows is None else order.rows) == n
        if order.is_other and is_whole:
            self.note("another order")
        elif order.places:
            self.note("its own")
        elif not self.is_known and n > 1 and is_whole:
            self.look(samples, batch)
        return order

    def _samples_first(self, samples: Sequence[Any], batch: Any) -> Any:
        """A batch with its samples before their places; itself where they are, or nothing tells it."""
        if self.puts_places_first is None and (is_turned := are_places_first(samples, batch)) is not None:
            self.note(self._FIRST[is_turned])
        n = len(samples)
        return with_samples_first(batch, n) if has_places_first(batch, n) or self.puts_places_first else batch

    def places(
        self, order: Order, n: int, rows: int | None, *, keeps_order: bool | None
    ) -> tuple[int | None, ...] | str:
        """The place of each row's sample, None of a row that is of none; or an `Unknown` or words: why it is not known.

        Args:
            order: What the batch shows.
            n: How many samples it was made of.
            rows: How many rows it has; None where that is not known.
            keeps_order: Whether the caller says that batches that show nothing hold the samples in their order.
        """
        if order.places and rows in (None, len(order.places)):
            return order.places
        if rows is not None and rows != n:
            return Unknown.OTHER_COUNT
        in_order = tuple(range(n))
        if n < 2:
            return in_order
        if order.is_other or self.is_other:
            return Unknown.REORDERED
        if keeps_order is False:
            return Unknown.UNSHOWN
        if keeps_order or self.is_known:
            return in_order
        if (doubt := self.doubt) is not None:
            return doubt
        self.assume(n)
        return in_order


class Collated(NamedTuple):
    """A batch on its way from the collator, with what was seen of its order; handed on without that."""

    batch: Any
    order: Order | None


class WatchedCollator:
    """A collator beside which is looked which sample each row of its batches was made of.

    It runs in the loader's workers: what was seen of all its batches is in memory that they share with the training,
    what was seen of one goes with it.

    Args:
        collate: The caller's own.
    """

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate
        self.seen = SeenOrders(collate)

    def __call__(self, samples: Any) -> Collated:
        """The collator's batch as it is, and its order."""
        given, own = list[Any](), list[Any]()
        with contextlib.suppress(Exception):
            if isinstance(samples, (list, tuple)):  # a collator may take out what it reads, or sort it as it is
                given, own = [dict(one) if type(one) is dict else one for one in samples], list(samples)
        batch = self.collate(samples)
        order = None
        with contextlib.suppress(Exception):  # comparing what it does not know is no fault of the training
            order = self.seen.order_in(given, batch, own)
        return Collated(batch, order)


@dataclass(frozen=True)
class IdsBesideCollator:
    """A collator that keeps the ids out of what the caller's own one puts together, and adds them to the batch.

    A collator may put its rows in another order, by length for example. Whose row each is, is then told by what stands
    in both; where that does not tell it, a text stands for the ids, which says so.

    Attributes:
        collate: The caller's own.
        keys: The columns that may hold ids.
        keeps_order: Whether the caller says that batches of which nothing shows it hold the samples in their order;
            None where nothing is said, and that is assumed.
        seen: What it was seen to do with the samples of this set.
        refused: The ids' column, where the collator cannot be given it.
        taken: The columns that the model takes: these are the collator's and the model's as without us.
        kept: The entry for the ids of such a column.
    """

    collate: Callable[[list[Any]], Any]
    keys: tuple[str, ...]
    keeps_order: bool | None = None
    seen: SeenOrders = field(default_factory=SeenOrders)
    refused: list[str] = field(default_factory=list)
    taken: frozenset[str] = frozenset()
    kept: str = ""

    def __call__(self, samples: list[Any]) -> Any:
        """The batch, with the ids in it."""
        there = [sample for sample in samples if sample is not None]  # what cannot be read is None, by custom
        are_known = bool(there) and all(isinstance(sample, Mapping) for sample in there)
        key = next((k for k in self.keys if are_known and any(k in sample for sample in there)), None)
        if key is None:
            return self.collate(samples)
        ids: Any = [as_id(sample.get(key)) for sample in there]
        if not may_be_ids([one for one in ids if one is not None]):
            are_missing = None in ids and key not in self.taken
            return self.collate(self._without_ids(samples, key) if are_missing else samples)
        # A collator may take out what it reads. Samples that differ in their ids alone are alike.
        given = [{name: value for name, value in sample.items() if name not in self.keys} for sample in there]
        batch = self.collate(samples) if key in self.taken else self._together(samples, key)
        entry = self.kept if key in self.taken else key
        if isinstance(batch, Mapping) and entry not in batch:
            try:
                ids = self._ids(ids, given, batch)
            except Exception as error:  # comparing what it does not know is no fault of the training
                ids = f"whose row is whose could not be told, as comparing a batch with its samples failed: {error}"
            batch[entry] = torch.tensor(ids) if all(type(i) is int for i in ids) else ids  # type: ignore[index]
        return batch

    def _ids(self, ids: list[Any], samples: list[Any], batch: Mapping[str, Any]) -> list[Any] | str:
        """The id of the sample that each row is of, or why that is not known."""
        n = len(samples)
        if _is_keeping(self.collate) or _are_packed(batch):
            return ids
        order = self.seen.order_in(samples, batch)
        rows = rows_made(batch, n) if order.rows is None else order.rows
        found = self.seen.places(order, n, rows, keeps_order=self.keeps_order)
        if isinstance(found, str):
            return WORDS[found] if isinstance(found, Unknown) else found
        return [None if place is None else ids[place] for place in found]

    def _together(self, samples: list[Any], key: str) -> Any:
        """What the caller's collator makes of the samples: with the ids where it can, since it may ask for them."""
        are_all = not any(s is not None and (s.get(key) is None or is_float(s[key])) for s in samples)
        if key in ID_KEYS and are_all and not self.refused:  # and not a number of ours
            drawn = capture([])
            try:
                return self.collate([None if sample is None else dict(sample) for sample in samples])
            except Exception:  # it never saw them: the columns that the model does not take are removed before
                self.refused.append(key)
                restore(drawn)
        return self.collate(self._without_ids(samples, key))

    def _without_ids(self, samples: list[Any], key: str) -> list[dict[str, Any] | None]:
        apart = {key, *self.keys} - self.taken
        return [s if s is None else {name: value for name, value in s.items() if name not in apart} for s in samples]


def _is_keeping(collate: Any) -> bool:
    """Whether a collator is one of a library's own, which are known to keep the order."""
    own = getattr(collate, "func", collate)
    module = getattr(own, "__module__", None) if hasattr(own, "__qualname__") else type(own).__module__
    return str(module).partition(".")[0] in _KEEPING


def _are_packed(batch: Mapping[str, Any]) -> bool:
    """Whether the samples of a batch lie in one row, one behind the other."""
    positions = batch.get("position_ids")
    return isinstance(positions, torch.Tensor) and positions.shape[:1] == (1,)


def rows_said(n: int) -> str:
    """So many rows, in words."""
    return "1 row" if n == 1 else f"{n} rows"
