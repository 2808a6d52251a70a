"""The score of every sample: its last finite value, found from the last epoch backwards."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Reader
from xaicli.vocabulary import SAMPLE_ID, STEP

SCORE = "score"
STALE = "stale"


def last_scores(reader: Reader, selection: Selection, pair: Pair, metric: str) -> pl.DataFrame:
    """Each sample's last finite value of a metric.

    Returns:
        sample_id, score (float64), stale (whether the value is of an earlier epoch than the last); one row a sample
        that has a finite value, in no particular order.
    """
    epochs = selection.epochs[pair]
    columns = columns_of(selection, (metric,))
    found: list[pl.DataFrame] = []
    seen: pl.Series | None = None
    for epoch, frame in reader.epoch_frames(*pair, columns, epochs[::-1], duplicates=selection.duplicates):
        rows = within_labels(frame, selection).filter(pl.col(metric).is_not_null())
        rows = rows.unique(SAMPLE_ID, keep="last", maintain_order=True)
        if seen is not None:
            rows = rows.filter(~pl.col(SAMPLE_ID).is_in(seen.implode()))
        if rows.height:
            found.append(
                rows.select(
                    SAMPLE_ID,
                    pl.col(metric).cast(pl.Float64).alias(SCORE),
                    pl.lit(epoch != epochs[-1]).alias(STALE),
                )
            )
            seen = pl.concat([frame[SAMPLE_ID] for frame in found])
    if not found:
        ids = reader.dtypes.get(SAMPLE_ID, pl.Int64())
        return pl.DataFrame(schema={SAMPLE_ID: ids, SCORE: pl.Float64(), STALE: pl.Boolean()})
    return pl.concat(found)


def extremes(scores: pl.DataFrame, n: int, *, highest: bool) -> pl.DataFrame:
    """The n highest or lowest scores, best first; of equal scores the smaller sample_id first.

    Args:
        scores: sample_id, score and more; scores finite.
        n: How many; fewer when there are fewer.
    """
    if n == 0 or scores.is_empty():
        return scores.clear()
    score = scores[SCORE]
    # The n-th best bounds the candidates, so that only these are sorted.
    if highest:
        candidates = scores.filter(pl.col(SCORE) >= score.top_k(n).min())
    else:
        candidates = scores.filter(pl.col(SCORE) <= score.bottom_k(n).max())
    return candidates.sort(SCORE, SAMPLE_ID, descending=[highest, False]).head(n)


def columns_of(selection: Selection, metrics: Sequence[str]) -> list[str]:
    """The columns a question about samples reads of every epoch."""
    return list(dict.fromkeys([SAMPLE_ID, selection.label_key, STEP, *metrics]))


def within_labels(frame: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """The rows whose label the selection is limited to; all rows without a limit."""
    if not selection.label_map:
        return frame
    return frame.filter(pl.col(selection.label_key).is_in(list(selection.label_map)))
