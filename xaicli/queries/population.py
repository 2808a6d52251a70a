"""Where all samples of an epoch lie: the bands behind the histories."""

from __future__ import annotations

import polars as pl

from xaicli.queries.scores import within_labels
from xaicli.queries.selection import Selection
from xaicli.reader import Place, Reader
from xaicli.vocabulary import DS_ID, EPOCH, MODE, STEP

_QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}


def population(reader: Reader, selection: Selection) -> pl.DataFrame:
    """Quantiles of each metric over the samples of every epoch; non-finite values are ignored.

    Returns:
        mode, ds_id, metric, epoch, step (the epoch's largest), n (finite values), q05, q25, q50, q75, q95 (float64,
        linear interpolation); ordered by pair, metric, epoch.
    """
    rows: list[tuple[object, ...]] = []
    for pair in selection.pairs:
        columns = list(dict.fromkeys([*selection.metrics, *([selection.label_key] if selection.label_map else [])]))
        frames = reader.epoch_frames(*pair, columns, selection.epochs[pair], duplicates=selection.duplicates)
        for epoch, frame in frames:
            kept = within_labels(frame, selection)
            step = reader.last_step(Place(*pair, epoch))
            for metric in selection.metrics:
                values = kept[metric].drop_nulls().cast(pl.Float64).sort()
                found = [values.quantile(q, "linear") for q in _QUANTILES.values()]
                rows.append((*pair, metric, epoch, step, len(values), *found))
    schema = {
        MODE: pl.String(),
        DS_ID: pl.String(),
        "metric": pl.String(),
        EPOCH: pl.Int32(),
        STEP: pl.Int64(),
        "n": pl.Int64(),
        **{name: pl.Float64() for name in _QUANTILES},
    }
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    order = {metric: number for number, metric in enumerate(selection.metrics)}
    return (
        frame.sort(
            pl.concat_str(MODE, DS_ID, separator="\0").replace_strict(
                {"\0".join(pair): number for number, pair in enumerate(selection.pairs)}, default=None
            ),
            pl.col("metric").replace_strict(order, default=None),
            EPOCH,
        )
        if frame.height
        else frame
    )
