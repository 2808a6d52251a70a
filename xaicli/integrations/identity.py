"""Which samples a batch holds: ids in the batch, a column of the dataset, at last the rows' numbers in the dataset."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from xaicli.collectors.outputs import TARGETS, entries_of
from xaicli.errors import XaiError

ID_KEYS = ("sample_id", "sample_ids", "example_id", "id", "ids", "idx", "index", "guid")
"""The entries of a batch that are taken for ids, the first that is there and holds one number or text a sample."""

_KINDS = frozenset("biuf")
"""The kinds of arrays of numbers, as numpy calls them."""

NO_IDS = (
    "no sample ids in the batch, so per-sample metrics are not logged; let the dataset yield (id, input, label), or a "
    "dict with sample_id, or give samples_fn"
)


class Parts(NamedTuple):
    """A batch by its parts, a row a sample where its values can be put together so.

    Attributes:
        batch: These.
        rows: How many samples it holds, where they, or their parts, are in lists; None where its tensors say it.
        are_samples: Whether it is a list of samples.
    """

    batch: Any
    rows: int | None = None
    are_samples: bool = False


def by_parts(batch: Any, *, are_samples: bool = False) -> Parts:
    """A batch that its collate_fn left a list of samples, or lists of their parts, by these, as torch puts them
    together; any other as it is.

    Args:
        batch: The batch.
        are_samples: Whether a list is known to be one of samples, which may then be single tensors or of several forms.
    """
    columns = _parts_of(batch, are_samples=are_samples)
    if columns is None:
        rows = _rows_listed(batch)
        return Parts(batch) if rows is None else Parts(_put_together(batch), rows)
    if isinstance(columns, dict):
        return Parts({name: _together(values) for name, values in columns.items()}, len(batch), are_samples=True)
    made = map(_together, columns)
    return Parts(type(batch[0])._make(made) if hasattr(batch[0], "_make") else list(made), len(batch), are_samples=True)


def _put_together(batch: Any) -> Any:
    """A batch of lists of a value a sample with these put together."""
    entries = entries_of(batch)
    parts = list(batch) if entries is None else entries.values()
    made = [_put_together(part) if isinstance(part, Mapping) else _together(list(part)) for part in parts]
    if entries is not None and not hasattr(batch, "_make"):
        return dict(zip(entries, made, strict=True))
    return made if entries is None else batch._make(made)


def _parts_of(batch: Any, *, are_samples: bool) -> dict[str, list[Any]] | list[list[Any]] | None:
    """The values of each part of the samples that a batch is a list of; None of any other batch.

    Where it is not known to be one of samples, some part is a single value of each of them, as no part of several
    batches beside one another is, and what is in the list are no parts of one kind, as `zip(*samples)` makes them.
    """
    if type(batch) not in (list, tuple) or not batch:
        return None
    first = batch[0]
    if isinstance(first, (list, tuple)):
        are_numbers = all(isinstance(value, (int, float)) for value in first)  # as of a text's tokens
        if are_numbers or any(type(one) is not type(first) or len(one) != len(first) for one in batch):
            return [list(batch)] if are_samples else None
        columns = list(map(list, zip(*batch, strict=True)))
        return columns if are_samples or (_has_single(columns) and not all(map(_are_of_one_kind, batch))) else None
    entries = [found for one in batch if (found := entries_of(one)) is not None]
    names = [name for name in entries[0] if all(name in one for one in entries)] if len(entries) == len(batch) else []
    if names:
        named = {str(name): [one[name] for one in entries] for name in names}
        are_alike = all(len(one) == len(names) for one in entries)
        return named if are_samples or (are_alike and _has_single(list(named.values()))) else None
    return [list(batch)] if are_samples else None


def _has_single(columns: list[list[Any]]) -> bool:
    """Whether some of these are a single value of each sample, in a dict as well."""
    return any(
        all(map(_is_single, values))
        or (isinstance(values[0], Mapping) and _parts_of(values, are_samples=False) is not None)
        for values in columns
    )


def _are_of_one_kind(values: Any) -> bool:
    """Whether these may be the same part of several samples."""
    return len({(type(one), getattr(one, "ndim", None)) for one in values}) == 1


def _is_single(value: Any) -> bool:
    return isinstance(value, (int, float, str)) or getattr(value, "ndim", None) == 0


def _together(values: list[Any]) -> Any:
    """Tensors or arrays of one shape, or numbers, as one tensor; a list of anything else."""
    are_numbers = [
        isinstance(v, torch.Tensor) or getattr(getattr(v, "dtype", None), "kind", "") in _KINDS for v in values
    ]
    if all(are_numbers) and len({tuple(one.shape) for one in values}) == 1:
        return torch.stack([torch.as_tensor(one) for one in values])
    return torch.as_tensor(values) if {type(one) for one in values} in ({int}, {float}) else values


def numbered_in(dataset: Any) -> Any:
    """The dataset that the rows' numbers of this one are of: of a `Subset` the whole."""
    return dataset.dataset if isinstance(dataset, torch.utils.data.Subset) else dataset


def nested_ids(batch: Any, depth: int = 3) -> str | None:
    """Where deeper in a batch an entry named like ids holds some, as it is written in Python behind the batch."""
    entries = entries_of(batch)
    is_named = not (isinstance(batch, Mapping) or entries is None)
    parts = list(enumerate(batch)) if isinstance(batch, (list, tuple)) and entries is None else []
    for key, part in list((entries or {}).items()) + parts if depth else []:
        at = f".{key}" if is_named else f"[{key!r}]"
        inside = entries_of(part)
        if inside is not None and (name := place_of_ids(part)) is not None and isinstance(name, str):
            return f"{at}[{name!r}]" if isinstance(part, Mapping) else f"{at}.{name}"
        if (found := nested_ids(part, depth - 1)) is not None:
            return at + found
    return None


def ids_of(batch: Any) -> Any:
    """The ids in a batch: the entry that is named like them, or the first of three or more parts; None without."""
    place = place_of_ids(batch)
    return None if place is None else _whole(_at(batch, place))


def place_of_ids(batch: Any) -> str | int | None:
    """Where in a batch the ids are that `ids_of` takes; None without."""
    if (entries := entries_of(batch)) is not None:
        named = next((key for key in ID_KEYS if key in entries and _are_ids_named(_whole(entries[key]))), None)
        if named is not None or not isinstance(batch, tuple) or next(iter(entries), "") in TARGETS:
            return named
    return 0 if isinstance(batch, (list, tuple)) and len(batch) > 2 and may_be_ids(batch[0]) else None


def _at(batch: Any, place: str | int) -> Any:
    entries = entries_of(batch)
    if entries is not None and (place in entries or not isinstance(batch, tuple)):
        return entries[place]  # type: ignore[index]
    return batch[place]


def chosen(batch: Any, place: str | int | Callable[[Any], Any], given: Any = None) -> Any:
    """The ids at a place of a batch that the caller names: a key, the number of a part, or a function of the batch.

    Args:
        batch: The batch.
        place: Where in it.
        given: The same as its loader gave it, for a function; None where that is it.

    Raises:
        XaiError: There is no such place, or what is there are no ids.
    """
    if callable(place):
        ids = place(batch if given is None else given)
    else:
        exist: list[Any] = list(entries_of(batch) or ())
        numbers = list(range(len(batch))) if isinstance(batch, (list, tuple)) else []
        if place not in (*exist, *numbers):
            listed = ", ".join(map(repr, exist or numbers)) or "none"
            deeper = nested_ids(batch)
            hint = f"it has {listed}" + (f"; ids=lambda batch: batch{deeper} names what lies deeper" if deeper else "")
            raise XaiError(f"ids={place!r}: the batch has no such part", hint=hint)
        ids = _at(batch, place)
    ids = _whole(ids)
    if not may_be_ids(ids):
        named = "the function ids=" if callable(place) else f"ids={place!r}"
        raise XaiError(f"{named}: one whole number or text a sample is needed")
    return ids


def size_of(batch: Any) -> int | None:
    """How many samples a batch holds: the length of its first tensor or list."""
    if isinstance(batch, torch.Tensor):
        return len(batch) if batch.ndim else None
    if _parts_of(batch, are_samples=False) is not None:
        return len(batch)
    entries = entries_of(batch)
    parts: Any = entries.values() if entries is not None else batch if isinstance(batch, (list, tuple)) else ()
    parts = list(parts)
    if (rows := _rows_listed(batch)) is not None:
        return rows
    for part in parts:
        if _holds_samples(part, parts):
            return len(part)
        if isinstance(batch, list) and not isinstance(part, (torch.Tensor, Mapping, list, tuple)):
            continue  # samples of the caller's own kind
        if (n := size_of(part)) is not None:
            return n
    return len(batch) if isinstance(batch, list) else None


def _rows_listed(batch: Any) -> int | None:
    """How many samples a batch holds that is made of lists of a part of each; None of any other."""
    columns = _listed_in(batch)
    are_alike = len(columns) > 1 and len(set(map(len, columns))) == 1
    return len(columns[0]) if are_alike and any(all(map(_is_single, one)) for one in columns) else None


def _listed_in(batch: Any) -> list[Any]:
    """The lists of a batch that is made of nothing else, as `zip(*samples)` makes them, in dicts as well."""
    entries, found = entries_of(batch), list[Any]()
    for part in batch if entries is None and isinstance(batch, (list, tuple)) else (entries or {}).values():
        if isinstance(part, (list, tuple)) and entries_of(part) is None:
            found.append(part)
        elif not isinstance(part, Mapping) or not (inner := _listed_in(part)):
            return []
        else:
            found += inner
    return found


def _holds_samples(part: Any, parts: list[Any]) -> bool:
    """Whether a part of a batch is a list of one thing a sample, as pictures of several sizes are, or their boxes.

    Several inputs or labels beside one another are a list, too: these are as long as each other.
    """
    if not (inner := _lengths_in(part)):
        return False
    others = [one for one in parts if one is not part and _is_sized(one)]
    lengths = inner.union(*({len(one)} if isinstance(one, torch.Tensor) else _lengths_in(one) for one in others))
    return len(lengths) > 1 and all(len(one) == len(part) for one in others)


def _is_sized(part: Any) -> bool:
    return part.ndim > 0 if isinstance(part, torch.Tensor) else isinstance(part, (list, tuple))


def _lengths_in(part: Any) -> set[int | None]:
    """How long the tensors are that a list holds, by themselves or in dicts; None of what else is in these."""
    if not isinstance(part, (list, tuple)) or entries_of(part) is not None:
        return set()
    are_named = all(isinstance(one, Mapping) for one in part)
    if not are_named and not all(isinstance(one, torch.Tensor) and one.ndim for one in part):
        return set()
    held = [value for one in part for value in (one.values() if are_named else (one,))]
    return {len(one) if isinstance(one, torch.Tensor) and one.ndim else None for one in held}


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
    are_floats = any(map(is_float, values)) if isinstance(values, (list, tuple)) else "float" in str(values.dtype)
    found = [as_id(value) for value in values] if are_floats else []
    return values if not found or any(isinstance(one, float) for one in found) else found


def _are_ids_named(values: Any) -> bool:
    """Whether an entry that is named like ids holds some, or none of any sample: such rows are left out by the run."""
    return may_be_ids(values) or (isinstance(values, (list, tuple)) and bool(values) and all(v is None for v in values))


def is_float(value: Any) -> bool:
    """Whether this is a number, or an array, of floats."""
    return isinstance(value, float) or (hasattr(value, "dtype") and "float" in str(value.dtype))


def as_id(value: Any) -> Any:
    """An id as a plain value; as pandas has them beside a missing one, whole numbers are floats and that one is NaN."""
    value = value.item() if getattr(value, "ndim", None) == 0 else value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None if math.isnan(value) else value
    return value
