"""In which order rows stand that were made of others: by a collator of samples, by a step or a hook of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from xaicli.collectors.outputs import entries_of
from xaicli.integrations.identity import size_of

_MOST = 4096
"""So many values of a sample are compared."""
_KINDS_BY = 1024
"""So many values of a row, at least, tell whether it is another."""
_MOST_PARTS = 64
"""So many parts has a sample; of more, as of a picture as lists of lists, reading takes longer than it tells."""
_LABELS = ("labels", "label", "label_ids")
"""What a collator renames."""
_PLAIN = (str, bytes, int, float, complex, type, type(None))
"""Of these the same object stands for all that are equal."""
_Fits = list[list[int]]
"""Of each row, the places of the values that it may be made of."""


@dataclass(frozen=True)
class Order:
    """Which sample each row of a batch was made of, by what stands in both alike.

    Attributes:
        places: The place of each row's sample among those given; None of a row that is none of them. Empty where
            nothing tells it.
        is_other: Whether the rows stand in another order than the samples, whether or not it is known which.
        rows: How many rows the batch has, where it holds the samples or their parts one by one, in lists; None where
            its tensors say it.
        are_samples: Whether the batch is a list of samples.
    """

    places: tuple[int | None, ...] = ()
    is_other: bool = False
    rows: int | None = None
    are_samples: bool = False


def order_in(samples: Sequence[Any], batch: Any, rows: int | None = None) -> Order:
    """Which sample each row of a batch was made of.

    What stands alike in the samples and the batch says it: texts and rows of several values before single ones. What
    has the name of a part of the samples is compared with that part alone. Where more than half of the rows of such a
    part are samples, those that are none were put in their place, or changed.

    Args:
        samples: What a collator was given; some may be None, which a dataset gives for what it cannot read.
        batch: What it made, by its parts where it is a list of samples.
        rows: How many rows that has; None where its parts say it.
    """
    n, rows = len(samples), rows_made(batch, len(samples)) if rows is None else rows
    if n == 0 or not rows:
        return Order()
    named = list(_fields(samples))
    names, fields, evidence = {name for name, _ in named}, [values for _, values in named], _Evidence(n, rows)
    for name, column in _columns(batch, rows):
        for of, values in named:
            is_of = name is None or of is None or name == of or name not in names
            if is_of and evidence.shows_order(column, values):
                return Order(tuple(range(n)))
    if not evidence.wide and (evidence.is_in_order or not evidence.single):
        return Order(tuple(range(n)) if evidence.is_shown(fields) else ())
    places = _told(_together(evidence.wide or evidence.single, evidence.kept, rows), fields)
    if places is None:  # rows that are alike in part say nothing against an order that another part shows
        return Order() if evidence.kept else Order(is_other=True)
    return _order_of(places)


def _order_of(places: tuple[int | None, ...]) -> Order:
    there = [place for place in places if place is not None]
    return Order(places, is_other=there != sorted(there))


def order_of_same(samples: Sequence[Any], batch: Any, own: Sequence[Any] | None = None) -> Order | None:
    """Which sample each row is of where a batch holds the very samples, or their parts, one by one in lists; None of
    any other.

    Args:
        samples: What a collator was given.
        batch: What it made.
        own: The samples themselves, where others have stood in for what the collator may have taken out of them.
    """
    fields, own = [values for _, values in _fields(samples)], samples if own is None else own
    if (found := _same_samples(samples, own, fields, batch)) is not None:
        return replace(_order_of(found), rows=len(found), are_samples=True)
    listed = list(_lists_in(batch))
    sizes = {len(one) for one in listed} | {len(one) for one in _tensors_beside(batch) if one.ndim}
    for part in listed:
        if sizes == {len(part)} or len(part) in (len(samples), rows_made(batch, len(samples))):
            for values in fields:
                at = {id(value): place for place, value in enumerate(values) if not isinstance(value, _PLAIN)}
                if len(at) == len(values) and all(id(one) in at for one in part):
                    return replace(_order_of(tuple(at[id(one)] for one in part)), rows=len(part))
    return None


def are_like_samples(samples: Sequence[Any], batch: Any) -> bool:
    """Whether a batch is a list of things of the form of the samples."""
    if type(batch) not in (list, tuple) or not batch:
        return False
    forms = [_form_of(one) for one in samples]
    return all(form is not None and form in forms for form in map(_form_of, batch))


def _form_of(value: Any) -> Any:
    """What samples of one dataset have in common: their type, their parts, and of tensors how many dimensions."""
    entries = entries_of(value)
    if entries is not None:
        return type(value), {str(name): getattr(part, "ndim", None) for name, part in entries.items()}
    if isinstance(value, (list, tuple)):
        return type(value), [getattr(part, "ndim", None) for part in value]
    return None if isinstance(value, _PLAIN) else (type(value), getattr(value, "ndim", None))


def _same_samples(
    samples: Sequence[Any], own: Sequence[Any], fields: list[list[Any]], batch: Any
) -> tuple[int | None, ...] | None:
    """The place of each row's sample in a list of samples, or of what holds the very parts of one each.

    One that holds parts of several is of none. Where more than half are none of the samples, it is no such list.
    """
    if type(batch) not in (list, tuple) or not batch:
        return None
    of_sample = [[*_objects_in(sample), *_objects_in(one)] for sample, one in zip(samples, own, strict=True)]
    at: dict[int, set[int]] = {}
    for place, objects in enumerate(of_sample):  # which live until these are compared
        for one in objects:
            at.setdefault(id(one), set()).add(place)
    held = [[at[id(part)] for part in _objects_in(one) if id(part) in at] for one in batch]
    fitting = [set[int]().union(*found[:1]).intersection(*found[1:]) for found in held]
    are_whole = all(any(one is sample for sample in own) for one in batch)
    if 2 * sum(map(bool, fitting)) <= len(batch) or (len(samples) == 1 < len(batch) and not are_whole):
        return None
    return _told(fitting, fields)


def _objects_in(value: Any, depth: int = 3) -> Iterator[Any]:
    """A value and what it holds that is an object of its own."""
    if not isinstance(value, _PLAIN):
        yield value
        entries = entries_of(value)
        parts = list(entries.values()) if entries is not None else value if isinstance(value, (list, tuple)) else ()
        for part in parts[:_MOST_PARTS] if depth else ():
            yield from _objects_in(part, depth - 1)


def _lists_in(batch: Any, depth: int = 3) -> Iterator[list[Any] | tuple[Any, ...]]:
    """The lists in a batch, itself among them."""
    entries = entries_of(batch)
    if entries is None and isinstance(batch, (list, tuple)):
        if batch and not any(isinstance(one, (list, tuple, Mapping)) for one in batch):
            yield batch
    elif entries is None:
        return
    for part in (list(batch) if entries is None else entries.values()) if depth else ():
        yield from _lists_in(part, depth - 1)


def _tensors_beside(batch: Any) -> Iterator[torch.Tensor]:
    """The tensors of a batch that are no part of a list within it."""
    entries = entries_of(batch)
    for part in entries.values() if entries is not None else batch if isinstance(batch, (list, tuple)) else ():
        if isinstance(part, torch.Tensor):
            yield part
        elif isinstance(part, Mapping):
            yield from _tensors_beside(part)


def are_places_first(samples: Sequence[Any], batch: Any) -> bool | None:
    """Whether a batch of as many places as samples has the places first, by what stands in both; None of any other.

    Args:
        samples: What a collator was given.
        batch: What it made.
    """
    n = len(samples)
    for _, column in _columns(batch, n):
        if not isinstance(column, torch.Tensor) or column.ndim < 2 or column.shape[1] != n:
            continue
        for _, values in _fields(samples):
            if _is_in_order(column, values) is not (is_turned := _is_in_order(column.transpose(0, 1), values)):
                return is_turned
    return None


def has_places_first(batch: Any, n: int) -> bool:
    """Whether a batch of `n` samples has these in the second dimension of its parts, by their lengths alone."""
    parts = list(_tensors(batch))
    wide = [part for part in parts if part.ndim > 1]
    is_first = any(part.shape[1] == n != len(part) for part in wide) and all(n in part.shape[:2] for part in wide)
    return is_first and all(len(part) == n for part in parts if part.ndim == 1)


def with_samples_first(batch: Any, n: int) -> Any:
    """A batch with the first two dimensions of the parts turned that have its `n` samples in the second."""
    if isinstance(batch, torch.Tensor):
        return batch.transpose(0, 1) if batch.ndim > 1 and batch.shape[1] == n else batch
    if (entries := entries_of(batch)) is not None:
        return {name: with_samples_first(part, n) for name, part in entries.items()}
    return [with_samples_first(part, n) for part in batch] if type(batch) in (list, tuple) else batch


def _tensors(batch: Any) -> Iterator[torch.Tensor]:
    """The tensors of a batch, however deep."""
    entries = entries_of(batch)
    if isinstance(batch, torch.Tensor):
        yield batch
    elif entries is not None or isinstance(batch, (list, tuple)):
        for part in batch if entries is None else entries.values():
            yield from _tensors(part)


def rows_made(batch: Any, n: int) -> int | None:
    """How many rows a batch of `n` samples has: as many where any part of it has."""
    entries = entries_of(batch)
    if entries is None:
        return size_of(batch)
    sizes = [size for part in entries.values() if (size := size_of(part)) is not None]
    return n if n in sizes or not sizes else sizes[0]


def rows_in(made: Sequence[torch.Tensor], given: Any) -> Order:
    """Which row of a batch each row of the tensors is of that a step, or a hook, made of it.

    Tensors that hold the batch's own memory, or are equal, are in its order; rows that stand in another order say
    whose they are. Rows of several values count before single ones, of which several are alike.

    Args:
        made: Some of them; those with as many rows as the batch count.
        given: The batch.
    """
    own = [part for _, part in _columns(given, size_of(given) or 0) if isinstance(part, torch.Tensor)]
    if not own:
        return Order()
    n = len(own[0])
    in_order = Order(tuple(range(n)))
    made = [part for part in made if part.ndim and len(part) == n]
    if any(one.data_ptr() == other.data_ptr() and one.numel() for one in made for other in own if one.ndim > 1):
        return in_order
    for is_wide in (True, False):
        pairs = [
            (one, other)
            for one in made
            for other in own
            if one.numel() == other.numel() and (one.numel() > n) is is_wide and one.device == other.device
        ]
        found = None
        for one, other in pairs:
            kinds = kinds_of(torch.cat([other.detach().reshape(n, -1), one.detach().reshape(n, -1).to(other.dtype)]))
            ours, theirs = kinds[:n], kinds[n:]
            if ours == theirs:
                if n == 1 or len(set(ours)) > 1:
                    return in_order
            elif found is None and (is_wide or sorted(ours) == sorted(theirs)) and len(set(theirs)) > 1:
                there = set(ours)
                found = (ours, theirs) if 2 * sum(kind in there for kind in theirs) > n else None
        if found is not None:
            places = _told([{p for p, kind in enumerate(found[0]) if kind == one} for one in found[1]], _rows_of(own))
            return Order(is_other=True) if places is None else Order(places, is_other=True)
    return Order()


def rows_apart(batch: Any, n: int) -> list[Any]:
    """The rows of a batch of so many, each by itself, by the names of its parts where these have some."""
    entries = entries_of(batch)
    named = dict(enumerate(batch)) if entries is None and isinstance(batch, (list, tuple)) else entries or {}
    parts = {
        str(name): part for name, part in named.items() if hasattr(part, "__len__") and hasattr(part, "__getitem__")
    }
    parts = {name: part for name, part in parts.items() if not isinstance(part, (str, Mapping)) and len(part) == n}
    rows = [{name: part[row] for name, part in parts.items()} for row in range(n)]
    return [tuple(row.values()) for row in rows] if entries is None else list(rows)


def kinds_of(rows: torch.Tensor) -> list[int]:
    """A number for each row, the same for those that are alike; of very many values some tell it."""
    if rows.numel() == 0:
        return [0] * len(rows)
    flat = (torch.view_as_real(rows) if rows.is_complex() else rows).reshape(len(rows), -1)
    some = flat[:, :: max(1, flat.shape[1] // _KINDS_BY)]
    kinds: list[int] = torch.unique(some, dim=0, return_inverse=True)[1].tolist()
    return kinds


def _rows_of(columns: Sequence[torch.Tensor]) -> list[list[Any]]:
    return [list(column.detach().cpu()) for column in columns]


@dataclass
class _Evidence:
    """What the parts of `n` samples and of a batch of so many rows say of the order, one after another.

    Attributes:
        wide: What fits where in parts of texts or several values a row.
        kept: The same of those that are in order, and hold rows that are alike.
        single: Of parts of one value a row, in another order.
        in_order: Which rows are alike in each part that is in order.
    """

    n: int
    rows: int
    wide: list[_Fits] = field(default_factory=list)
    kept: list[_Fits] = field(default_factory=list)
    single: list[_Fits] = field(default_factory=list)
    in_order: list[list[Any]] = field(default_factory=list)

    def shows_order(self, column: Any, values: list[Any]) -> bool:
        """Whether a part of the batch says by itself that the rows are in order; else what it says is kept."""
        is_wide = isinstance(column[0], str) or (isinstance(column, torch.Tensor) and column.ndim > 1)
        if self.rows == self.n and _is_in_order(column, values):
            kinds = _kinds(column)
            self.in_order.append(kinds)
            are_apart = len(set(kinds)) == self.rows
            if is_wide and 1 < len(set(kinds)) < self.rows:
                self.kept.append(_fits(column, values))
            return is_wide and are_apart
        if is_wide:
            fits = _fits(column, values)
            are_apart = len({tuple(one) for one in fits if one}) > 1 or (self.rows == 1 and len(fits[0]) < self.n)
            if 2 * sum(map(bool, fits)) > self.rows and are_apart:
                self.wide.append(fits)
        elif self.rows == self.n and _is_reordered(column, values):
            self.single.append(_fits(column, values))
        return False

    @property
    def is_in_order(self) -> bool:
        """Whether some part is, whose rows are not all alike."""
        return any(len(set(kinds)) > 1 for kinds in self.in_order)

    def is_shown(self, fields: list[list[Any]]) -> bool:
        """Whether the parts that are in order tell the samples apart, but for those that are alike in everything."""
        alike: dict[tuple[Any, ...], list[int]] = {}
        for place, kinds in enumerate(zip(*self.in_order, strict=True)):
            alike.setdefault(kinds, []).append(place)
        several = [places for places in alike.values() if len(places) > 1]
        return bool(alike) and all(_are_alike([values[i] for i in places]) for places in several for values in fields)


def _together(found: list[_Fits], kept: list[_Fits], rows: int) -> list[set[int]] | None:
    """The places that fit each row by all that tells it; None where that contradicts itself."""
    whole = [fits for fits in (*found, *kept) if all(fits)]
    in_part = max((fits for fits in found if not all(fits)), key=lambda fits: sum(map(bool, fits)), default=None)
    left = []
    for row in range(rows):
        fitting = set(whole[0][row]).intersection(*(fits[row] for fits in whole[1:])) if whole else None
        if fitting is not None and not fitting:
            return None
        if in_part is not None:
            fitting = set(in_part[row]) if fitting is None else fitting & set(in_part[row])
        left.append(fitting or set())
    return left


def _told(left: list[set[int]] | None, fields: list[list[Any]]) -> tuple[int | None, ...] | None:
    """One place a row of those that fit it; None where several do that are not alike in everything."""
    if left is None:
        return None
    taken: set[int] = set()
    places: list[int | None] = []
    for fitting in left:
        several = sorted(fitting)
        if len(several) > 1 and any(not _are_alike([values[p] for p in several]) for values in fields):
            return None
        place = next((p for p in several if p not in taken), several[0] if several else None)
        if place is not None:
            taken.add(place)
        places.append(place)
    return tuple(places)


def _are_alike(values: list[Any]) -> bool:
    keys = [_key(value, None) for value in values]
    return all(key is not None and key == keys[0] for key in keys)


def _kinds(column: Any) -> list[Any]:
    return kinds_of(column) if isinstance(column, torch.Tensor) else list(column)


def _is_column(part: Any, n: int) -> bool:
    if isinstance(part, torch.Tensor):
        return part.ndim > 0 and len(part) == n
    return isinstance(part, (list, tuple)) and len(part) == n and all(isinstance(v, (str, int, float)) for v in part)


def _columns(batch: Any, n: int, name: str | None = None) -> Iterator[tuple[str | None, Any]]:
    """What holds a value a row, with its name: tensors, and lists of texts and numbers, however deep in the batch."""
    if _is_column(batch, n):
        yield name, batch
    elif (entries := entries_of(batch)) is not None:
        for key, part in entries.items():
            yield from _columns(part, n, _name(key))
    elif isinstance(batch, (list, tuple)):
        for part in batch:
            yield from _columns(part, n, name)


def _fields(samples: Sequence[Any], name: str | None = None) -> Iterator[tuple[str | None, list[Any]]]:
    """The values of each part of the samples, with its name, where all have it that are there."""
    there = [one for one in samples if one is not None]
    if not there:
        return
    first = there[0]
    if (entries := entries_of(first)) is not None:
        named = [None if one is None else entries_of(one) or {} for one in samples]
        for key in entries:
            if all(one is None or key in one for one in named):
                yield from _fields([None if one is None else one[key] for one in named], _name(key))
    elif isinstance(first, (list, tuple)) and first and not all(isinstance(v, (int, float)) for v in first):
        if len(first) > _MOST_PARTS:
            return
        for place in range(len(first)):
            if all(isinstance(one, (list, tuple)) and len(one) == len(first) for one in there):
                yield from _fields([None if one is None else one[place] for one in samples], name)
    else:
        yield name, list(samples)


def _name(key: Any) -> str:
    return _LABELS[0] if key in _LABELS else str(key)


def _is_in_order(rows: Any, values: list[Any]) -> bool:
    """Whether rows are these values, one by one."""
    if not isinstance(rows, torch.Tensor):
        return list(rows) == values
    for row, value in zip(rows, values, strict=True):
        one = _tensor(value)
        if one is None or not _is_of(_few(row.detach().cpu()), _few(one.to(rows.dtype))):
            return False
    return True


def _is_reordered(rows: Any, values: list[Any]) -> bool:
    """Whether rows of one value each are these values in another order."""
    made = [_key(row, None) for row in rows]
    given = [_key(value, rows.dtype if isinstance(rows, torch.Tensor) else None) for value in values]
    return None not in given and sorted(map(repr, made)) == sorted(map(repr, given))


def _fits(rows: Any, values: list[Any]) -> _Fits:
    """The places of the values that each row may be made of: it is equal, or one of them filled up."""
    dtype = rows.dtype if isinstance(rows, torch.Tensor) else None
    by_key: dict[Any, list[int]] = {}
    for place, value in enumerate(values):
        if (key := _key(value, dtype)) is not None:
            by_key.setdefault(key, []).append(place)
    found = [by_key.get(_key(row, dtype), []) for row in rows]
    if dtype is None or rows.ndim < 2:
        return found
    given = [_tensor(value) for value in values]
    shorter = [
        (place, one.to(dtype))
        for place, one in enumerate(given)
        if one is not None
        and one.ndim == rows.ndim - 1
        and one.shape[1:] == rows.shape[2:]
        and len(one) < rows.shape[1]
    ]
    for row, places in enumerate(found):
        if not places and shorter:
            of_row = rows[row].detach().cpu()
            found[row] = [place for place, value in shorter if _is_of(of_row, value)]
    return found


def _key(value: Any, dtype: torch.dtype | None) -> Any:
    """What is equal for equal values alone; None of what has no such."""
    if isinstance(value, (str, int, float)) and dtype is None:
        return value
    one = _tensor(value)
    if one is None:
        return None
    one = _few(one if dtype is None else one.to(dtype)).contiguous()
    if one.is_complex():
        one = torch.view_as_real(one)
    shape = tuple(one.shape) if one.numel() > 1 else ()
    return shape, one.reshape(-1).view(torch.uint8).numpy().tobytes()


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
