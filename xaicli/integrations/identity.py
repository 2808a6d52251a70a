"""Which samples a batch holds: ids in the batch, a column of the dataset, at last the rows' numbers in the dataset."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
        return next((batch[key] for key in ID_KEYS if key in batch and may_be_ids(batch[key])), None)
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
    """Whether these are one whole number or text a sample, as classes are; token ids, (samples, tokens), are not."""
    if isinstance(values, torch.Tensor):
        return values.ndim == 1 and not values.is_floating_point() and values.dtype is not torch.bool
    if hasattr(values, "dtype") and hasattr(values, "ndim"):
        return values.ndim == 1 and values.dtype.kind in "iuUSO"
    return isinstance(values, (list, tuple)) and bool(values) and all(type(v) in (int, str) for v in values)


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
    """A dataset of dicts with each row's number beside it, under a name of its own."""

    rows: Any
    key: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        row = self.rows[index]
        return {**row, self.key: int(index)} if isinstance(row, Mapping) else row


@dataclass(frozen=True)
class IdsBesideCollator:
    """A collator that keeps the ids out of what the caller's own one puts together, and adds them to the batch.

    Attributes:
        collate: The caller's own.
        keys: The columns that may hold ids.
    """

    collate: Callable[[list[Any]], Any]
    keys: tuple[str, ...]

    def __call__(self, samples: list[Any]) -> Any:
        """The batch, with the ids in it."""
        key = next((k for k in self.keys if samples and isinstance(samples[0], Mapping) and k in samples[0]), None)
        if key is None:
            return self.collate(samples)
        ids = [_plain(sample[key]) for sample in samples]
        if not may_be_ids(ids):
            return self.collate(samples)
        batch = self._together(samples, key)
        if isinstance(batch, Mapping) and key not in batch:
            batch[key] = torch.tensor(ids) if all(type(i) is int for i in ids) else ids  # type: ignore[index]
        return batch

    def _together(self, samples: list[Any], key: str) -> Any:
        """What the caller's collator makes of the samples: with the ids where it can, since it may ask for them."""
        if key in ID_KEYS:  # and not a number of ours
            try:
                return self.collate(samples)
            except (ValueError, TypeError, KeyError, RuntimeError):
                pass
        apart = {key, *self.keys}
        return self.collate(
            [{name: value for name, value in sample.items() if name not in apart} for sample in samples]
        )


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
