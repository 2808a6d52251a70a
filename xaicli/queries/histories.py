"""The histories of a few samples."""

from __future__ import annotations

import polars as pl

from xaicli.queries.scores import columns_of
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Reader, Tally
from xaicli.vocabulary import EPOCH, LABEL, SAMPLE_ID, STEP


def histories(reader: Reader, selection: Selection, pair: Pair, ids: pl.Series, tally: Tally) -> pl.DataFrame:
    """Every row of some samples, epoch by epoch.

    Args:
        ids: The samples' ids.
        tally: Counts the rows of all samples, not only these.

    Returns:
        sample_id, label (the selection's label key), epoch, step (the largest of the epoch), and each metric as
        float64 with null for a value that was not finite; ordered by epoch.
    """
    columns = columns_of(selection, selection.metrics)
    wanted = ids.implode()
    parts = []
    frames = reader.epoch_frames(*pair, columns, selection.epochs[pair], duplicates=selection.duplicates, tally=tally)
    for epoch, frame in frames:
        step = frame[STEP].max()
        parts.append(
            frame.filter(pl.col(SAMPLE_ID).is_in(wanted)).select(
                SAMPLE_ID,
                pl.col(selection.label_key).alias(LABEL),
                pl.lit(epoch, pl.Int32).alias(EPOCH),
                pl.lit(step, pl.Int64).alias(STEP),
                *(pl.col(metric).cast(pl.Float64) for metric in selection.metrics),
            )
        )
    if parts:
        return pl.concat(parts, how="vertical_relaxed")
    dtypes = {SAMPLE_ID: ids.dtype, LABEL: reader.dtypes.get(selection.label_key, pl.Null())}
    times = {EPOCH: pl.Int32(), STEP: pl.Int64()}
    return pl.DataFrame(schema=dtypes | times | {metric: pl.Float64() for metric in selection.metrics})
