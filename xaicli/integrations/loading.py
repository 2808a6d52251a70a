"""Which rows of its dataset a loader's batches are of: seen where torch fetches them.

Nothing is put into a loader: its samplers, its collator, its length and its type are the caller's own, and what a
sampler yields is handed on as it is. What is seen is torch's own walk over a loader, whose methods stand aside for
every walk that is not watched.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, dataloader, default_collate

from xaicli.integrations.collators import Collated, WatchedCollator
from xaicli.integrations.order import Order

_MOST_BATCHES = 4
"""So many batches without any tensor are remembered of a loader; others as long as they live."""
_MOST_PARTS = 64
"""By so many of its tensors a batch is known again."""


class Fetched(NamedTuple):
    """One batch as a loader gave it.

    Attributes:
        numbers: The number in its dataset of each sample it was made of; None where the sampler gives no such.
        order: Which of these samples each row is of, as the collator was seen to do; None of one that keeps them.
    """

    numbers: list[int] | None
    order: Order | None


@dataclass
class Watch:
    """What is seen of one loader.

    Attributes:
        rows: The number of each row in the dataset the rows are of, where the loader reads a subset.
        collator: What looks beside the loader's own; None of torch's, which keeps the order.
        users: How many trainings ask.
    """

    rows: Sequence[int] | None
    collator: WatchedCollator | None = None
    users: int = 0
    _given: dict[tuple[int, ...], tuple[Callable[[], Any], Fetched]] = field(default_factory=dict)

    def beside(self, collate: Any) -> Any:
        """What is to make the batches of a walk: the loader's own collator, looked at where its order is not known."""
        if collate is default_collate:
            self.collator = None
            return collate
        if self.collator is None or self.collator.collate is not collate:
            self.collator = WatchedCollator(collate)
        return self.collator

    def let_go(self) -> None:
        """Forget the batches where nobody asks any more."""
        if not self.users:
            self._given.clear()

    def note(self, batch: Any, numbers: list[int] | None, order: Order | None) -> None:
        """Remember what a batch is of, for as long as it lives."""
        parts = list(_tensors(batch))
        for key in [key for key, (alive, _) in self._given.items() if alive() is None]:
            del self._given[key]
        if parts:
            key = tuple(map(id, parts))
            alive: Callable[[], Any] = weakref.ref(parts[0])
        else:
            key, alive = (id(batch),), _held(batch)
            texts = [key for key, (kept, _) in self._given.items() if not isinstance(kept, weakref.ref)]
            for old in texts[: max(0, len(texts) - _MOST_BATCHES + 1)]:
                del self._given[old]
        self._given[key] = (alive, Fetched(numbers, order))

    def take(self, batch: Any) -> Fetched | None:
        """What a batch is of; None of one that the loader did not give, or that was made anew of it."""
        parts = list(_tensors(batch))
        key = tuple(map(id, parts or [batch]))
        alive, found = self._given.get(key, (_nothing, None))
        if found is None or alive() is not (parts[0] if parts else batch):
            return None
        return found

    def numbers_of(self, index: Any) -> list[int] | None:
        """The rows' numbers in what a sampler gave for a batch; None where it gave something else."""
        try:
            found = [operator.index(one) for one in index]
            return found if self.rows is None else [int(self.rows[one]) for one in found]
        except Exception:  # a sampler may give what it likes: keys, pairs of a row and a size
            return None


class Loading:
    """The loaders of one training, watched until they are let go."""

    def __init__(self) -> None:
        self._watched: list[DataLoader[Any]] = []

    def watch(self, loader: Any) -> None:
        """See what the batches of a loader are of, where its dataset has numbered rows."""
        if (
            not isinstance(loader, DataLoader)
            or isinstance(loader.dataset, IterableDataset)
            or loader.batch_sampler is None
            or not _install()
        ):
            return
        watch = _of_loader(loader)
        if watch is None:
            rows = loader.dataset.indices if isinstance(loader.dataset, Subset) else None
            watch = Watch(rows)
            _WATCHES[id(loader)] = (weakref.ref(loader, _forget(id(loader))), watch)
        watch.users += 1
        self._watched.append(loader)

    @staticmethod
    def of(loader: Any) -> Watch | None:
        """What is seen of a loader; None of one whose rows have no numbers."""
        return _of_loader(loader)

    def release(self) -> None:
        """Let the loaders go: walks that go on are no longer asked about."""
        while self._watched:
            if (watch := _of_loader(self._watched.pop())) is not None:
                watch.users -= 1
                watch.let_go()


@dataclass
class _Walk:
    """One walk over a loader, as torch's own iterator makes it.

    Attributes:
        watch: The loader's.
        numbers: Of each batch that was asked for, its rows, by the number of the task; a lone process has task 0 alone.
        arrived: The task of each batch that workers gave, by its identity, until it is handed on.
    """

    watch: Watch
    numbers: dict[int, Callable[[], list[int] | None]] = field(default_factory=dict)
    arrived: dict[int, int] = field(default_factory=dict)

    def asked(self, walked: Any, index: Any) -> Any:
        """Note the rows of a batch that is asked for; what the sampler gave, to be handed on."""
        task = getattr(walked, "_send_idx", 0)
        if task == 0:
            self.numbers.clear()
            self.arrived.clear()
        if isinstance(index, Iterator):
            # It can be walked over once, by torch; a dataset that is handed it as it is, or a worker, gets it so.
            if hasattr(walked, "_send_idx") or hasattr(walked._dataset, "__getitems__"):
                self.numbers[task] = _nothing
                return index
            noted = _Noted(index)
            self.numbers[task] = lambda: self.watch.numbers_of(noted.seen)
            return noted
        numbers = self.watch.numbers_of(index) if hasattr(index, "__iter__") and hasattr(index, "__len__") else None
        self.numbers[task] = lambda: numbers
        return index

    def came(self, walked: Any, made: Any, order: Order | None, key: int) -> None:
        """Note what a batch that is handed on is of."""
        task = self.arrived.pop(key, None) if hasattr(walked, "_send_idx") else 0
        numbers = self.numbers.pop(task, _nothing)() if task is not None else None
        if self.watch.users:
            self.watch.note(made, numbers, order)


class _Noted:
    """An iterator that remembers what it gave."""

    def __init__(self, own: Iterator[Any]) -> None:
        self._own = own
        self.seen: list[Any] = []

    def __iter__(self) -> _Noted:
        return self

    def __next__(self) -> Any:
        found = next(self._own)
        self.seen.append(found)
        return found


_WATCHES: dict[int, tuple[Callable[[], Any], Watch]] = {}
"""By the loader's identity: workers that outlive a training keep what they were given by the first."""
_WALKS: weakref.WeakKeyDictionary[Any, _Walk] = weakref.WeakKeyDictionary()


def _of_loader(loader: Any) -> Watch | None:
    alive, watch = _WATCHES.get(id(loader), (_nothing, None))
    return watch if alive() is loader else None


def _forget(key: int) -> Callable[[Any], None]:
    return lambda _gone: _WATCHES.pop(key, None) and None


def _nothing() -> None:
    return None


def _held(batch: Any) -> Callable[[], Any]:
    return lambda: batch


def _tensors(batch: Any) -> Iterator[torch.Tensor]:
    """The tensors of a batch, however deep, up to some."""
    todo, left = [batch], _MOST_PARTS
    while todo and left:
        part = todo.pop()
        if isinstance(part, torch.Tensor):
            left -= 1
            yield part
        elif isinstance(part, Mapping):
            todo += part.values()
        elif isinstance(part, (list, tuple)):
            todo += part[:_MOST_PARTS]


def _install() -> bool:
    """Stand beside torch's own walks over loaders, once; whether that can be done with this torch.

    It stays: workers that outlive a training go on to give what they were told to. Whatever of ours fails is no fault
    of the training, and costs the rows their numbers.
    """
    base: Any = getattr(dataloader, "_BaseDataLoaderIter", None)
    alone: Any = getattr(dataloader, "_SingleProcessDataLoaderIter", None)
    workers: Any = getattr(dataloader, "_MultiProcessingDataLoaderIter", None)
    needed = ("_next_index", "__next__", "_reset")
    if not (alone and all(hasattr(base, name) for name in needed) and hasattr(workers, "_get_data")):
        return False
    if getattr(base.__next__, "_is_beside", False):
        return True
    begin, again, ask, give, receive = base.__init__, base._reset, base._next_index, base.__next__, workers._get_data

    @wraps(begin)
    def begins(self: Any, loader: Any) -> None:
        begin(self, loader)
        if type(self) in (alone, workers) and (watch := _of_loader(loader)) is not None:
            _WALKS[self] = _Walk(watch)
            self._collate_fn = watch.beside(self._collate_fn)

    @wraps(again)
    def goes_again(self: Any, loader: Any, *args: Any, **kwargs: Any) -> None:
        again(self, loader, *args, **kwargs)
        if type(self) is workers and self not in _WALKS and (watch := _of_loader(loader)) is not None:
            watch.beside(self._collate_fn)  # workers that were there before have the caller's own
            _WALKS[self] = _Walk(watch)

    @wraps(ask)
    def asks(self: Any) -> Any:
        index = ask(self)
        if (walk := _WALKS.get(self)) is not None:
            with suppress(Exception):
                return walk.asked(self, index)
        return index

    @wraps(receive)
    def receives(self: Any) -> Any:
        found = receive(self)
        if (walk := _WALKS.get(self)) is not None and type(found[0]) is int:
            walk.arrived[id(found[1])] = found[0]
        return found

    @wraps(give)
    def gives(self: Any) -> Any:
        given = give(self)
        if (walk := _WALKS.get(self)) is None:
            return given
        batch, order = given if type(given) is Collated else (given, None)
        with suppress(Exception):
            walk.came(self, batch, order, id(given))
        return batch

    gives._is_beside = True  # type: ignore[attr-defined]
    base.__init__, base._reset, base._next_index, base.__next__ = begins, goes_again, asks, gives
    workers._get_data = receives
    return True
