"""Whether a collator keeps its samples' order: without ids in a batch, the rows' numbers are told by it."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import default_collate, default_convert

from xaicli.integrations.identity import SeenOrders, kinds_of, size_of

_KEEP = (default_collate, default_convert)
"""Collators that are known to keep it."""
_MOST = 4096
"""So many values of a sample are compared."""
_KEPT, _ANOTHER = 1, 2
_DISORDER = "puts a batch in another order than it was given its samples"


class WatchedCollator:
    """A collator beside which is looked whether its batches hold its samples one by one, in their order.

    It runs in the loader's workers: what was seen is in memory that they share with the training.

    Args:
        collate: The caller's own.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate
        self._kept: torch.Tensor = torch.zeros(1, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        """Whether some batch showed its order."""
        self.seen = SeenOrders(collate)

    def __call__(self, samples: list[Any]) -> Any:
        """The collator's batch, as it is."""
        given = list(samples)
        batch = self.collate(samples)
        if not self.seen.is_other:
            with contextlib.suppress(Exception):  # comparing what it does not know is no fault of the training
                self._look(given, batch)
        return batch

    def _look(self, samples: list[Any], batch: Any) -> None:
        found = _order(samples, batch)
        if found == _KEPT:
            self._kept[0] = 1
        elif found == _ANOTHER:
            self.seen.note("another order")
        elif not self.is_known and len(samples) > 1 and size_of(batch) == len(samples):
            self.seen.look(samples, batch)

    @property
    def disorder(self) -> str | None:
        """What a collator does that its rows cannot be told after; None for one that keeps their order."""
        return _DISORDER if self.seen.is_other else None

    @property
    def is_known(self) -> bool:
        """Whether some batch showed its order."""
        return bool(self._kept[0])


_WATCHED: weakref.WeakKeyDictionary[Any, WatchedCollator] = weakref.WeakKeyDictionary()
"""By loader: workers that outlive a training keep what they were given by the first."""


def watch(loader: Any) -> Callable[[], None]:
    """Look beside a loader's collator; how to put it back."""
    own = loader.collate_fn
    if own in _KEEP or isinstance(own, WatchedCollator):
        return lambda: None
    watched = _WATCHED.get(loader)
    if watched is None or watched.collate is not own:
        watched = _WATCHED[loader] = WatchedCollator(own)
    loader.collate_fn = watched

    def put_back() -> None:
        loader.collate_fn = own

    return put_back


def watched_of(loader: Any) -> WatchedCollator | None:
    """A loader's collator, where it is one that may not keep the order."""
    collate = getattr(loader, "collate_fn", None)
    return collate if isinstance(collate, WatchedCollator) else None


def _order(samples: Sequence[Any], batch: Any) -> int:
    """What stands alike in the samples and the batch says it: texts and rows of several values before single ones."""
    n = len(samples)
    if n < 2 or size_of(batch) != n:
        return 0
    fields = list(_fields(samples))
    tells_apart = False
    verdicts = {True: set[bool](), False: set[bool]()}  # of rows of several values, and of single ones
    for rows in _columns(batch, n):
        for values in fields:
            is_wide, is_kept = _compared(rows, values)
            if is_kept is not None:
                verdicts[is_wide].add(is_kept)
                tells_apart = tells_apart or (is_kept and _are_apart(rows))
    for said in (verdicts[True], verdicts[False]):
        if said and True not in said:
            return _ANOTHER
        if said:
            return _KEPT if tells_apart else 0
    return 0


def _are_apart(rows: Any) -> bool:
    """Whether no two rows are alike: labels that several samples share fit in other orders, too."""
    return len(set(kinds_of(rows) if isinstance(rows, torch.Tensor) else rows)) == len(rows)


def _is_column(part: Any, n: int) -> bool:
    if isinstance(part, torch.Tensor):
        return part.ndim > 0 and len(part) == n
    return isinstance(part, (list, tuple)) and len(part) == n and all(isinstance(v, (str, int, float)) for v in part)


def _columns(batch: Any, n: int) -> Iterator[Any]:
    """What holds a value a row: tensors, and lists of texts and numbers, however deep in the batch."""
    if _is_column(batch, n):
        yield batch
    elif isinstance(batch, Mapping):
        for part in batch.values():
            yield from _columns(part, n)
    elif isinstance(batch, (list, tuple)):
        for part in batch:
            yield from _columns(part, n)


def _fields(samples: Sequence[Any]) -> Iterator[list[Any]]:
    """The values of each part of the samples, where all have it."""
    first = samples[0]
    if isinstance(first, Mapping):
        for key in first:
            if all(isinstance(one, Mapping) and key in one for one in samples):
                yield from _fields([one[key] for one in samples])
    elif isinstance(first, (list, tuple)) and first and not all(isinstance(v, (int, float)) for v in first):
        for place in range(len(first)):
            if all(isinstance(one, (list, tuple)) and len(one) == len(first) for one in samples):
                yield from _fields([one[place] for one in samples])
    else:
        yield list(samples)


def _compared(rows: Any, values: list[Any]) -> tuple[bool, bool | None]:
    """Whether rows hold several values each, and whether they are these values in order.

    True, False where they are the same in another order, None where they say nothing.
    """
    if not isinstance(rows, torch.Tensor):
        made, are_texts = list(rows), isinstance(rows[0], str)
        if made == values:
            return are_texts, True if any(value != made[0] for value in made) else None
        return are_texts, False if sorted(map(repr, made)) == sorted(map(repr, values)) else None
    given = [_tensor(value) for value in values]
    is_wide = rows.ndim > 1
    shown = [_few(row.detach().cpu()) for row in rows]
    kept = [None if one is None else _few(one.to(rows.dtype)) for one in given]
    if all(_is_of(row, one) for row, one in zip(shown, kept, strict=True)):
        return is_wide, None if all(_is_of(row, kept[0]) for row in shown) else True
    left = list(range(len(kept)))
    for row in shown:
        found = next((place for place in left if _is_of(row, kept[place])), None)
        if found is None:
            return is_wide, None
        left.remove(found)
    return is_wide, False


def _tensor(value: Any) -> torch.Tensor | None:
    try:
        return torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def _few(value: torch.Tensor) -> torch.Tensor:
    """A value of very many numbers by some of them; texts and signals, which may be filled up, as they are."""
    if value.ndim < 3 or value.numel() <= _MOST:
        return value
    return value.flatten()[:: value.numel() // _MOST]


def _is_of(row: torch.Tensor, value: torch.Tensor | None) -> bool:
    """Whether a row is a sample's value, or that filled up along its first axis."""
    if value is None or (row.ndim != value.ndim and row.numel() != value.numel()):
        return False
    if row.shape == value.shape or row.numel() == value.numel() == 1:
        return torch.equal(row.reshape(value.shape), value)
    if row.ndim != value.ndim or row.shape[1:] != value.shape[1:] or not 0 < len(value) < len(row):
        return False
    n, fill = len(value), len(row) - len(value)
    at_left = torch.equal(row[:n], value) and bool((row[n:] == row[-1]).all())
    return at_left or (torch.equal(row[fill:], value) and bool((row[:fill] == row[0]).all()))
