"""Which samples a batch holds: ids in the batch, a column of the dataset, at last the rows' numbers in the dataset."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from xaicli.errors import XaiError
from xaicli.integrations.hints import KINDS, LENGTHS, hints

ID_KEYS = ("sample_id", "sample_ids", "example_id", "id", "ids", "idx", "index", "guid")
"""The entries of a batch that are taken for ids, the first that is there and holds one number or text a sample."""

NO_IDS = (
    "no sample ids in the batch, so per-sample metrics are not logged; let the dataset yield (id, input, label), or a "
    "dict with sample_id, or give samples_fn"
)


def ids_of(batch: Any) -> Any:
    """The ids in a batch: the entry of a dict named like them, or the first of three or more parts; None without."""
    if isinstance(batch, Mapping):
        named = (_whole(batch[key]) for key in ID_KEYS if key in batch)
        return next((ids for ids in named if _are_ids_named(ids)), None)
    if isinstance(batch, (list, tuple)) and len(batch) > 2 and may_be_ids(batch[0]):
        return batch[0]
    return None


def chosen(batch: Any, place: str | int | Callable[[Any], Any]) -> Any:
    """The ids at a place of a batch that the caller names: a key, the number of a part, or a function of the batch.

    Raises:
        XaiError: There is no such place, or what is there are no ids.
    """
    if callable(place):
        ids = place(batch)
    else:
        exist = list(batch) if isinstance(batch, Mapping) else list(range(len(batch))) if size_of(batch) else []
        if place not in exist:
            listed = ", ".join(map(repr, exist)) or "none"
            raise XaiError(f"ids={place!r}: the batch has no such part", hint=f"it has {listed}")
        ids = batch[place]
    ids = _whole(ids)
    if not may_be_ids(ids):
        raise XaiError(f"ids={place!r}: one whole number or text a sample is needed")
    return ids


def size_of(batch: Any) -> int | None:
    """How many samples a batch holds: the length of its first tensor or list."""
    if isinstance(batch, torch.Tensor):
        return len(batch) if batch.ndim else None
    parts: Any = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (list, tuple)) else ()
    for part in parts:
        if (n := size_of(part)) is not None:
            return n
    return len(batch) if isinstance(batch, list) else None


def may_be_ids(values: Any) -> bool:
    """Whether these are one whole number or text a sample, as classes are; token ids, (samples, tokens), are not.

    In a list some may be missing.
    """
    if isinstance(values, torch.Tensor):
        return values.ndim == 1 and not values.is_floating_point() and values.dtype is not torch.bool
    if hasattr(values, "dtype") and hasattr(values, "ndim"):
        return values.ndim == 1 and values.dtype.kind in "iuUSO"
    kinds = set(map(type, values)) if isinstance(values, (list, tuple)) else set()
    return bool(kinds - {type(None)}) and kinds <= {int, str, type(None)}


def _whole(values: Any) -> Any:
    """Ids as they are; whole numbers that are floats, as pandas has them beside a missing one, NaN, as whole ones."""
    if not isinstance(values, (list, tuple)) and getattr(values, "ndim", 0) != 1:
        return values
    is_float = any(map(_is_float, values)) if isinstance(values, (list, tuple)) else "float" in str(values.dtype)
    found = [_as_id(value) for value in values] if is_float else []
    return values if not found or any(isinstance(one, float) for one in found) else found


def _are_ids_named(values: Any) -> bool:
    """Whether an entry that is named like ids holds some, or none of any sample: such rows are left out by the run."""
    return may_be_ids(values) or (isinstance(values, (list, tuple)) and bool(values) and all(v is None for v in values))


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
    "other batches, or seems to: rows of batches before may stand under the ids of others"
)
"""What is said where that was wrong."""

_KEEPING = ("transformers", "torch")
"""Packages whose own collators give the samples in the order they are given them."""

_COMPARED = 1024
"""So many values of a row, at least, tell whether it is another."""

_ONE_NAME = {"labels": ("labels", "label", "label_ids")}
"""What a collator renames."""


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

    _WHAT = ("another order", "assumed", *(f"{hint} {answer}" for hint in (LENGTHS, KINDS) for answer in (True, False)))

    def __init__(self, collate: Any = None) -> None:
        name = getattr(collate, "__name__", type(collate).__name__)
        self._name = "" if collate is None or name == "<lambda>" else f" {name}"
        self._flags: torch.Tensor = torch.zeros(len(self._WHAT), dtype=torch.uint8)
        self._flags.share_memory_()  # type: ignore[no-untyped-call]

    def note(self, what: str) -> None:
        """It was seen to give "another order", or "assumed" to keep its own."""
        self._flags[self._WHAT.index(what)] = 1

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
    def said(self) -> list[str]:
        """What is to be said of it once: what was assumed, and that this was wrong."""
        lines = [ASSUMED] if self.has("assumed") else []
        is_wrong = bool(lines) and (self.is_other or self.doubt is not None)
        return [line.format(name=self._name) for line in (*lines, *([WRONGLY] if is_wrong else []))]

    @property
    def is_other(self) -> bool:
        """Whether it gave another order."""
        return self.has("another order")


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
    """

    collate: Callable[[list[Any]], Any]
    keys: tuple[str, ...]
    keeps_order: bool | None = None
    seen: SeenOrders = field(default_factory=SeenOrders)

    def __call__(self, samples: list[Any]) -> Any:
        """The batch, with the ids in it."""
        there = [sample for sample in samples if sample is not None]  # what cannot be read is None, by custom
        are_known = bool(there) and all(isinstance(sample, Mapping) for sample in there)
        key = next((k for k in self.keys if are_known and any(k in sample for sample in there)), None)
        if key is None:
            return self.collate(samples)
        ids: Any = [_as_id(sample.get(key)) for sample in there]
        if not may_be_ids([one for one in ids if one is not None]):
            return self.collate(self._without_ids(samples, key) if None in ids else samples)
        # A collator may take out what it reads. Samples that differ in their ids alone are alike.
        given = [{name: value for name, value in sample.items() if name not in self.keys} for sample in there]
        batch = self._together(samples, key)
        if isinstance(batch, Mapping) and key not in batch:
            try:
                order = self._order(given, batch)
            except Exception as error:  # comparing what it does not know is no fault of the training
                order = f"whose row is whose could not be told, as comparing a batch with its samples failed: {error}"
            ids = order if isinstance(order, str) else [ids[place] for place in order]
            batch[key] = torch.tensor(ids) if all(type(i) is int for i in ids) else ids  # type: ignore[index]
        return batch

    def _order(self, samples: list[Any], batch: Mapping[str, Any]) -> list[int] | str:
        """Which sample each row is of, or why that is not known."""
        in_order, n = list(range(len(samples))), len(samples)
        if (rows := _rows(batch, n)) != n and not (_is_keeping(self.collate) or _are_packed(batch)):
            order = order_of(samples, batch, rows)
            return OTHER_COUNT if order is None else order
        order = order_of(samples, batch)
        if order != in_order:
            self.seen.note("another order")
            return REORDERED if order is None else order
        if self.keeps_order or _is_keeping(self.collate) or n < 2 or is_shown(samples, batch):
            return order
        if self.keeps_order is False:
            return UNSHOWN
        if self.seen.is_other:
            return REORDERED
        if (doubt := self.seen.look(samples, batch)) is not None:
            return doubt
        self.seen.note("assumed")
        return order

    def _together(self, samples: list[Any], key: str) -> Any:
        """What the caller's collator makes of the samples: with the ids where it can, since it may ask for them."""
        are_all = not any(s is not None and (s.get(key) is None or _is_float(s[key])) for s in samples)
        if key in ID_KEYS and are_all:  # and not a number of ours
            try:
                return self.collate([None if sample is None else dict(sample) for sample in samples])
            except (ValueError, TypeError, KeyError, RuntimeError):
                pass
        return self.collate(self._without_ids(samples, key))

    def _without_ids(self, samples: list[Any], key: str) -> list[dict[str, Any] | None]:
        apart = {key, *self.keys}
        return [s if s is None else {name: value for name, value in s.items() if name not in apart} for s in samples]


def _is_keeping(collate: Any) -> bool:
    """Whether a collator is one of a library's own, which are known to keep the order."""
    own = getattr(collate, "func", collate)
    module = getattr(own, "__module__", None) if hasattr(own, "__qualname__") else type(own).__module__
    return str(module).partition(".")[0] in _KEEPING


def _is_float(value: Any) -> bool:
    return isinstance(value, float) or (hasattr(value, "dtype") and "float" in str(value.dtype))


def _as_id(value: Any) -> Any:
    """An id as a plain value; as pandas has them beside a missing one, whole numbers are floats and that one is NaN."""
    value = value.item() if getattr(value, "ndim", None) == 0 else value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None if math.isnan(value) else value
    return value


def _rows(batch: Mapping[str, Any], n: int) -> int:
    """How many rows a batch of `n` samples has: as many where any part of it has."""
    sizes = [size for part in batch.values() if (size := size_of(part)) is not None]
    return n if n in sizes or not sizes else sizes[0]


def _are_packed(batch: Mapping[str, Any]) -> bool:
    """Whether the samples of a batch lie in one row, one behind the other."""
    positions = batch.get("position_ids")
    return isinstance(positions, torch.Tensor) and positions.shape[:1] == (1,)


def order_of(
    samples: Sequence[Mapping[str, Any]], batch: Mapping[str, Any], rows: int | None = None
) -> list[int] | None:
    """Which sample each row of a batch was made of; None where they are not in order and it cannot be told.

    Only what stands in the samples and in the batch alike is evidence: a column that a collator changes says nothing,
    and without any evidence the order is the samples' own.

    Args:
        samples: What the collator was given.
        batch: What it made.
        rows: How many rows there are, where they are others than the samples: then the order is never taken for given.
    """
    n = len(samples) if rows is None else rows
    in_order, places, told = list(range(n)), range(len(samples)), list[_Column]()
    for name, values in batch.items():
        column = _column(name, values, samples, n)
        if column is None:
            continue
        if rows is not None:
            if all(any(column.fits(row, place) for place in places) for row in in_order):
                told.append(column)
        elif all(column.fits(row, row) for row in in_order):
            if column.is_wide and n > 1 and not column.fits(0, 1):
                return in_order
            told.append(column)
        elif column.is_of_all():
            told.append(column)
    if rows is None and all(column.fits(row, row) for column in told for row in in_order):
        return in_order
    candidates = {row: [p for p in places if all(column.fits(row, p) for column in told)] for row in in_order}
    order = [0] * n
    while candidates:
        row = min(candidates, key=lambda row: len(candidates[row]))
        found = candidates.pop(row)
        if not found or (len(found) > 1 and not _are_alike(samples, found)):
            return None
        order[row] = found[0]
        # A sample that was put in the place of another has several rows.
        candidates = {other: [p for p in those if p != found[0]] or those for other, those in candidates.items()}
    return order


def kinds_of(rows: torch.Tensor) -> list[int]:
    """A number for each row, the same for those that are alike; of very many values some tell it."""
    if rows.numel() == 0:
        return [0] * len(rows)
    flat = (torch.view_as_real(rows) if rows.is_complex() else rows).reshape(len(rows), -1)
    some = flat[:, :: max(1, flat.shape[1] // _COMPARED)]
    kinds: list[int] = torch.unique(some, dim=0, return_inverse=True)[1].tolist()
    return kinds


def is_shown(samples: Sequence[Mapping[str, Any]], batch: Mapping[str, Any]) -> bool:
    """Whether what stands in the samples and in the batch alike shows that these are in order, and in no other one."""
    n = len(samples)
    alike: dict[tuple[int, ...], list[int]] = {}
    columns = [c for name, rows in batch.items() if (c := _column(name, rows, samples, n)) is not None]
    kept = [column.rows for column in columns if all(column.fits(place, place) for place in range(n))]
    kinds = [kinds_of(rows) for rows in kept]
    for place in range(n):
        alike.setdefault(tuple(kind[place] for kind in kinds), []).append(place)
    return all(len(places) == 1 or _are_alike(samples, places) for places in alike.values())


@dataclass(frozen=True)
class _Column:
    """What stands in a batch and in the samples it was made of under one name."""

    rows: torch.Tensor
    given: list[torch.Tensor]

    @property
    def is_wide(self) -> bool:
        """Whether it holds more than one value a sample, so that it tells samples apart."""
        return self.rows.ndim > 1

    def fits(self, row: int, place: int) -> bool:
        """Whether a row may be made of a sample: it is equal, or this one filled up at one side."""
        made, given = self.rows[row], self.given[place].to(self.rows.dtype)
        if made.ndim == given.ndim == 1 and 0 < len(given) < len(made):
            n, fill = len(given), len(made) - len(given)
            at_left = torch.equal(made[:n], given) and bool((made[n:] == made[-1]).all())
            return at_left or (torch.equal(made[fill:], given) and bool((made[:fill] == made[0]).all()))
        return torch.equal(made, given) if made.shape == given.shape else False

    def is_of_all(self) -> bool:
        """Whether each row is of some sample, and of single values each sample in some row."""
        places = range(len(self.given))
        if not self.is_wide:
            given = [value.to(self.rows.dtype).item() for value in self.given]
            return sorted(self.rows.tolist()) == sorted(given)
        return all(any(self.fits(row, place) for place in places) for row in places)


def _are_alike(samples: Sequence[Mapping[str, Any]], places: list[int]) -> bool:
    """Whether these samples are the same in all that they hold, so that it does not matter whose row is whose."""
    first, *others = (samples[place] for place in places)
    return all(one.keys() == first.keys() and all(_is_same(one[k], first[k]) for k in first) for one in others)


def _is_same(one: Any, other: Any) -> bool:
    try:
        return torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    except (TypeError, ValueError, RuntimeError):
        return isinstance(one, str) and one == other


def _column(name: str, rows: Any, samples: Sequence[Mapping[str, Any]], n: int) -> _Column | None:
    key = next((key for key in _ONE_NAME.get(name, (name,)) if key in samples[0]), None)
    if key is None or not isinstance(rows, torch.Tensor) or rows.ndim == 0 or len(rows) != n:
        return None
    values = [sample.get(key) for sample in samples]
    if any(isinstance(v, (list, tuple)) and (not v or isinstance(v[0], (list, tuple))) for v in values):
        return None  # pictures as lists of lists take longer to read than they tell
    try:
        given = [torch.as_tensor(value).cpu() for value in values]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    if rows.ndim == 1:
        return _Column(rows.cpu(), [g.reshape(()) for g in given]) if all(g.numel() == 1 for g in given) else None
    return _Column(rows.cpu(), given)
