"""The rows themselves."""

from __future__ import annotations

import polars as pl

from xaicli.queries.selection import Selection
from xaicli.reader import Reader


def rows(reader: Reader, selection: Selection, *, all_metrics: bool = False) -> pl.LazyFrame:
    """The selected rows as one lazy frame; duplicates and non-finite values untouched.

    Args:
        all_metrics: Every metric, not only the selected ones.
    """
    left_out = () if all_metrics else set(reader.metrics) - set(selection.metrics)
    columns = [name for name in reader.dtypes if name not in left_out]
    lazy = pl.concat(
        [reader.scan(mode, ds_id, selection.epochs[mode, ds_id], columns) for mode, ds_id in selection.pairs]
    )
    if selection.label_map:
        lazy = lazy.filter(pl.col(selection.label_key).is_in(list(selection.label_map)))
    return lazy
