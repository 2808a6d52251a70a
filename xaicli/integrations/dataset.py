"""The dataset of a Trainer of transformers, with ids in its rows: a column of its own, or the rows' numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from xaicli.integrations.collators import NumberedRows
from xaicli.state.randomness import randomness_kept

ROW = "xai_row_number"
"""The column of the rows' numbers."""
KEPT = "xai_sample_id"
"""The entry of a batch that holds its ids, where the model itself takes those of their own name."""
_LOOKED_AT = 16
"""So many rows of a dataset are looked at for ids, where the first has none."""


def with_column(dataset: Any, keys: tuple[str, ...]) -> Any:
    """A dataset whose format leaves out the ids, with them in its rows.

    `set_format(columns=...)` names the columns, `set_transform` makes the rows anew of all of them.
    """
    said = getattr(dataset, "format", None)
    shown = said.get("columns") if isinstance(said, Mapping) else None
    names = getattr(dataset, "column_names", None)
    key = next((key for key in keys if key in (names or ())), None)
    if key is None or shown is None or not hasattr(dataset, "with_format"):
        return dataset
    if _is_transformed(dataset):
        is_left_out = key not in (_sample_of(dataset) or {key: None})
        return NumberedRows(dataset, key, list(dataset.with_format(None)[key])) if is_left_out else dataset
    if key in shown:
        return dataset
    kwargs = said.get("format_kwargs") or {}  # type: ignore[union-attr]
    return dataset.with_format(said["type"], columns=[*shown, key], **kwargs)  # type: ignore[index]


def _is_transformed(dataset: Any) -> bool:
    """Whether a function of the caller's makes a dataset's rows, whose columns are then its own."""
    said = getattr(dataset, "format", None)
    return isinstance(said, Mapping) and said.get("type") == "custom"


def _sample_of(dataset: Any, keys: tuple[str, ...] = ()) -> Mapping[str, Any] | None:
    """The first row that has one of these keys, else the first; of a stream the columns where it names them.

    None where neither can be looked at. A row may draw numbers when it is read: they are put back.
    """
    if isinstance(dataset, torch.utils.data.IterableDataset) or not hasattr(dataset, "__getitem__"):
        names = getattr(dataset, "column_names", None)
        return dict.fromkeys(names) if names else None
    first = None
    with randomness_kept():
        for place in range(_LOOKED_AT):
            try:
                row = dataset[place]
            except Exception:  # there are no more, or this one cannot be read
                break
            if isinstance(row, Mapping):
                first = row if first is None else first
                if not keys or any(key in row for key in keys):
                    return row
    return first


def has_ids(dataset: Any, keys: tuple[str, ...]) -> bool:
    """Whether a dataset's rows have ids under one of these keys; true of one that cannot be looked at."""
    row = _sample_of(dataset, keys)
    return row is None or any(key in row and _is_id(row[key]) for key in keys)


def _is_id(value: Any) -> bool:
    if isinstance(value, float):  # as pandas has whole numbers beside a missing one
        return value.is_integer() or math.isnan(value)
    return value is None or isinstance(value, (int, str)) or getattr(value, "ndim", 1) == 0


def are_texts(dataset: Any, keys: tuple[str, ...]) -> bool:
    """Whether its ids are texts."""
    row = _sample_of(dataset, keys) or {}
    key = next((key for key in keys if key in row), None)
    if key is None:
        return False
    return isinstance(row[key], str)


def numbered_rows(dataset: Any) -> Any:
    """The dataset with the rows' numbers in a column; None where they cannot be told.

    Those of a `Subset`, as `random_split` makes them, have their numbers in the whole.
    """
    if hasattr(dataset, "add_column") and not _is_transformed(dataset):
        return dataset.add_column(ROW, list(range(len(dataset))))
    if isinstance(dataset, torch.utils.data.IterableDataset) or not hasattr(dataset, "__len__"):
        return None
    rows = dataset.indices if isinstance(dataset, torch.utils.data.Subset) else None
    return NumberedRows(dataset, ROW, None if rows is None else [int(row) for row in rows])
