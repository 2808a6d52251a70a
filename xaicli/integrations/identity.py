"""Which samples a batch holds: ids in the batch, a column of the dataset, at last the rows' numbers in the dataset."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
    place = place_of_ids(batch)
    return None if place is None else _whole(batch[place]) if isinstance(batch, Mapping) else batch[place]


def place_of_ids(batch: Any) -> str | int | None:
    """Where in a batch the ids are that `ids_of` takes; None without."""
    if isinstance(batch, Mapping):
        return next((key for key in ID_KEYS if key in batch and _are_ids_named(_whole(batch[key]))), None)
    return 0 if isinstance(batch, (list, tuple)) and len(batch) > 2 and may_be_ids(batch[0]) else None


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
