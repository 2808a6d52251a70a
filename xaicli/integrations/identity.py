"""Which samples a batch holds: ids in the batch, a column of the dataset, at last the rows' numbers in the dataset."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

ID_KEYS = ("sample_id", "sample_ids", "example_id", "id", "ids", "idx", "index", "guid")
"""The entries of a batch that are taken for ids, the first that is there and holds one number or text a sample."""

NO_IDS = (
    "no sample ids in the batch, so per-sample metrics are not logged; let the dataset yield (id, input, label), or a "
    "dict with sample_id, or give samples_fn"
)


def ids_of(batch: Any) -> Any:
    """The ids in a batch: the entry of a dict named like them, or the first of three or more parts; None without."""
    if isinstance(batch, Mapping):
        return next((batch[key] for key in ID_KEYS if key in batch and _are_ids(batch[key])), None)
    if isinstance(batch, (list, tuple)) and len(batch) > 2 and _are_ids(batch[0]):
        return batch[0]
    return None


def size_of(batch: Any) -> int | None:
    """How many samples a batch holds: the length of its first tensor or list."""
    if isinstance(batch, torch.Tensor):
        return len(batch) if batch.ndim else None
    parts: Any = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (list, tuple)) else ()
    for part in parts:
        if (n := size_of(part)) is not None:
            return n
    return len(batch) if isinstance(batch, list) else None


def _are_ids(values: Any) -> bool:
    """Whether these are one whole number or text a sample: token ids, (samples, tokens), are none."""
    if isinstance(values, torch.Tensor):
        return values.ndim == 1 and not values.is_floating_point() and values.dtype is not torch.bool
    if hasattr(values, "dtype") and hasattr(values, "ndim"):
        return values.ndim == 1 and values.dtype.kind in "iuUSO"
    return isinstance(values, (list, tuple)) and bool(values) and all(type(v) in (int, str) for v in values)


class NumberedSampler:
    """A sampler that remembers the rows it gave, so that they can be told of the batches made of them.

    Args:
        sampler: The loader's own; everything else is asked of it.
        rows: The number of each row in the dataset the rows are of, where the loader reads a subset.
    """

    def __init__(self, sampler: Any, rows: Sequence[int] | None = None) -> None:
        self.sampler = sampler
        self._rows = rows
        self._given: deque[int] = deque()

    def __iter__(self) -> Iterator[Any]:
        self._given.clear()
        for row in self.sampler:
            self._given.append(int(row) if self._rows is None else int(self._rows[row]))
            yield row

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        if name == "sampler":
            raise AttributeError(name)
        return getattr(self.sampler, name)

    def take(self, n: int) -> list[int] | None:
        """The rows of the next batch of `n`; None where fewer were given, so that they are not known."""
        return [self._given.popleft() for _ in range(n)] if n <= len(self._given) else None


def number(loader: Any) -> Callable[[], None] | None:
    """Have a loader's sampler remember its rows; how to put it back. None where it does, or is none of torch's."""
    batches = _batches_of(loader)
    if (
        not hasattr(batches, "sampler")
        or isinstance(batches.sampler, NumberedSampler)
        or isinstance(loader.dataset, torch.utils.data.IterableDataset)
    ):
        return None
    own = batches.sampler
    rows = loader.dataset.indices if isinstance(loader.dataset, torch.utils.data.Subset) else None
    batches.sampler = NumberedSampler(own, rows)

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
        if not _are_ids(ids):
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
