"""Which samples a batch holds: ids in the batch, a column of the dataset, at last the rows' numbers in the dataset."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from xaicli.errors import XaiError

ID_KEYS = ("sample_id", "sample_ids", "example_id", "id", "ids", "idx", "index", "guid")
"""The entries of a batch that are taken for ids, the first that is there and holds one number or text a sample."""

NO_IDS = (
    "no sample ids in the batch, so per-sample metrics are not logged; let the dataset yield (id, input, label), or a "
    "dict with sample_id, or give samples_fn"
)


def ids_of(batch: Any) -> Any:
    """The ids in a batch: the entry of a dict named like them, or the first of three or more parts; None without."""
    if isinstance(batch, Mapping):
        return next((batch[key] for key in ID_KEYS if key in batch and _are_ids_named(batch[key])), None)
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


def _are_ids_named(values: Any) -> bool:
    """Whether an entry that is named like ids holds some, or none of any sample: such rows are left out by the run."""
    return may_be_ids(values) or (isinstance(values, (list, tuple)) and bool(values) and all(v is None for v in values))


REORDERED = (
    "the collator gives the samples in another order than it was given them, and what stands in a batch does not tell "
    "whose row is whose: let it return the ids as well"
)
"""What stands in a batch for its ids, where they cannot be told."""

UNSHOWN = (
    "nothing in a batch of the collator shows in which order it gives the samples, so that whose row is whose is not "
    "known: let the dataset have a column sample_id and the collator return it, or say XaiCallback(..., "
    "keeps_order=True)"
)
"""The same, where a collator of the caller's leaves nothing as it is."""

_KEEPING = ("transformers", "torch")
"""Packages whose own collators give the samples in the order they are given them."""

_ONE_NAME = {"labels": ("labels", "label", "label_ids")}
"""What a collator renames."""


class NumberedSampler:
    """A sampler that remembers the rows it gave, so that they can be told of the batches made of them.

    One loader may be walked over for two purposes at a time: validated with while an epoch of training is under way.

    Args:
        sampler: The loader's own; everything else is asked of it.
        purpose: Says what for a walk over the rows begins.
        rows: The number of each row in the dataset the rows are of, where the loader reads a subset.
    """

    def __init__(self, sampler: Any, purpose: Callable[[], object], rows: Sequence[int] | None = None) -> None:
        self.sampler = sampler
        self._purpose = purpose
        self._rows = rows
        self._given: dict[object, deque[int]] = {}

    def __iter__(self) -> Iterator[Any]:
        given = self._given[self._purpose()] = deque()
        for row in self.sampler:
            given.append(int(row) if self._rows is None else int(self._rows[row]))
            yield row

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        if name == "sampler":
            raise AttributeError(name)
        return getattr(self.sampler, name)

    def take(self, n: int) -> list[int] | None:
        """The rows of the next batch of `n` for this purpose; None where fewer were given, and they are not known."""
        given = self._given.get(self._purpose(), ())
        return [given.popleft() for _ in range(n)] if isinstance(given, deque) and n <= len(given) else None


def number(loader: Any, purpose: Callable[[], object]) -> Callable[[], None] | None:
    """Have a loader's sampler remember its rows; how to put it back. None where it does, or is none of torch's.

    Args:
        loader: One of torch's.
        purpose: Says what for it is walked over at the time, as in `NumberedSampler`.
    """
    batches = _batches_of(loader)
    if (
        not hasattr(batches, "sampler")
        or isinstance(batches.sampler, NumberedSampler)
        or isinstance(loader.dataset, torch.utils.data.IterableDataset)
    ):
        return None
    own = batches.sampler
    rows = loader.dataset.indices if isinstance(loader.dataset, torch.utils.data.Subset) else None
    batches.sampler = NumberedSampler(own, purpose, rows)

    def put_back() -> None:
        batches.sampler = own

    return put_back


def numbering_of(loader: Any) -> NumberedSampler | None:
    """What remembers the rows a loader gives."""
    sampler = getattr(_batches_of(loader), "sampler", None)
    return sampler if isinstance(sampler, NumberedSampler) else None


def _batches_of(loader: Any) -> Any:
    """What makes a loader's batches of its sampler: Lightning has something of its own around it when it predicts."""
    batches = getattr(loader, "batch_sampler", None)
    return getattr(batches, "_batch_sampler", batches)


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


def seen_orders() -> torch.Tensor:
    """What collators were seen to do, in memory that a loader's workers share: keep their order, give another one."""
    return torch.zeros(2, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call, no-any-return]


@dataclass(frozen=True)
class IdsBesideCollator:
    """A collator that keeps the ids out of what the caller's own one puts together, and adds them to the batch.

    A collator may put its rows in another order, by length for example. Whose row each is, is then told by what stands
    in both; where that does not tell it, a text stands for the ids, which says so.

    Attributes:
        collate: The caller's own.
        keys: The columns that may hold ids.
        keeps_order: Whether the caller says that batches of which nothing shows it hold the samples in their order.
        seen: What `seen_orders` gives; of collators that are one and the same.
    """

    collate: Callable[[list[Any]], Any]
    keys: tuple[str, ...]
    keeps_order: bool = False
    seen: torch.Tensor = field(default_factory=seen_orders)

    def __call__(self, samples: list[Any]) -> Any:
        """The batch, with the ids in it."""
        are_known = bool(samples) and all(isinstance(sample, Mapping) for sample in samples)
        key = next((k for k in self.keys if are_known and any(k in sample for sample in samples)), None)
        if key is None:
            return self.collate(samples)
        ids: Any = [_as_id(sample.get(key)) for sample in samples]
        if not may_be_ids([one for one in ids if one is not None]):
            return self.collate(self._without_ids(samples, key) if None in ids else samples)
        # A collator may take out what it reads. Samples that differ in their ids alone are alike.
        given = [{name: value for name, value in sample.items() if name not in self.keys} for sample in samples]
        batch = self._together(samples, key)
        if isinstance(batch, Mapping) and key not in batch:
            order = self._order(given, batch)
            ids = order if isinstance(order, str) else [ids[place] for place in order]
            batch[key] = torch.tensor(ids) if all(type(i) is int for i in ids) else ids  # type: ignore[index]
        return batch

    def _order(self, samples: list[Any], batch: Any) -> list[int] | str:
        """Which sample each row is of, or why that is not known."""
        order, in_order = order_of(samples, batch), list(range(len(samples)))
        keeps, gives_another = range(len(self.seen))
        if order != in_order:
            self.seen[gives_another] = 1
            return REORDERED if order is None else order
        if self.keeps_order or _is_keeping(self.collate) or len(samples) < 2:
            return order
        if self.seen[keeps] and not self.seen[gives_another]:
            return order
        if not is_shown(samples, batch):
            return UNSHOWN
        self.seen[keeps] = 1
        return order

    def _together(self, samples: list[Any], key: str) -> Any:
        """What the caller's collator makes of the samples: with the ids where it can, since it may ask for them."""
        are_all = not any(sample.get(key) is None or _is_float(sample[key]) for sample in samples)
        if key in ID_KEYS and are_all:  # and not a number of ours
            try:
                return self.collate([dict(sample) for sample in samples])
            except (ValueError, TypeError, KeyError, RuntimeError):
                pass
        return self.collate(self._without_ids(samples, key))

    def _without_ids(self, samples: list[Any], key: str) -> list[dict[str, Any]]:
        apart = {key, *self.keys}
        return [{name: value for name, value in sample.items() if name not in apart} for sample in samples]


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


def order_of(samples: Sequence[Mapping[str, Any]], batch: Mapping[str, Any]) -> list[int] | None:
    """Which sample each row of a batch was made of; None where they are not in order and it cannot be told.

    Only what stands in the samples and in the batch alike is evidence: a column that a collator changes says nothing,
    and without any evidence the order is the samples' own.
    """
    n = len(samples)
    in_order, told = list(range(n)), list[_Column]()
    for name, rows in batch.items():
        column = _column(name, rows, samples)
        if column is None:
            continue
        if all(column.fits(row, row) for row in in_order):
            if column.is_wide and n > 1 and not column.fits(0, 1):
                return in_order
            told.append(column)
        elif column.is_of_all():
            told.append(column)
    if all(column.fits(row, row) for column in told for row in in_order):
        return in_order
    candidates = {row: [p for p in in_order if all(column.fits(row, p) for column in told)] for row in in_order}
    order = [0] * n
    while candidates:
        row = min(candidates, key=lambda row: len(candidates[row]))
        found = candidates.pop(row)
        if not found or (len(found) > 1 and not _are_alike(samples, found)):
            return None
        order[row] = found[0]
        candidates = {other: [place for place in those if place != found[0]] for other, those in candidates.items()}
    return order


def is_shown(samples: Sequence[Mapping[str, Any]], batch: Mapping[str, Any]) -> bool:
    """Whether something that stands in the samples and in the batch alike shows that these are in order."""
    places = range(len(samples))
    columns = (_column(name, rows, samples) for name, rows in batch.items())
    return any(
        all(column.fits(place, place) for place in places) and not all(column.fits(0, place) for place in places)
        for column in columns
        if column is not None
    )


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
        """Whether each row is of some sample, and each sample in some row."""
        places = range(len(self.given))
        if not self.is_wide:
            given = [value.to(self.rows.dtype).item() for value in self.given]
            return sorted(self.rows.tolist()) == sorted(given)
        fits = [[self.fits(row, place) for place in places] for row in places]
        return all(map(any, fits)) and all(any(line[place] for line in fits) for place in places)


def _are_alike(samples: Sequence[Mapping[str, Any]], places: list[int]) -> bool:
    """Whether these samples are the same in all that they hold, so that it does not matter whose row is whose."""
    first, *others = (samples[place] for place in places)
    return all(one.keys() == first.keys() and all(_is_same(one[k], first[k]) for k in first) for one in others)


def _is_same(one: Any, other: Any) -> bool:
    try:
        return torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    except (TypeError, ValueError, RuntimeError):
        return isinstance(one, str) and one == other


def _column(name: str, rows: Any, samples: Sequence[Mapping[str, Any]]) -> _Column | None:
    key = next((key for key in _ONE_NAME.get(name, (name,)) if key in samples[0]), None)
    if key is None or not isinstance(rows, torch.Tensor) or rows.ndim == 0 or len(rows) != len(samples):
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
