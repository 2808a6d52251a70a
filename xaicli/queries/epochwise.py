"""Scores and histories by polars, epoch by epoch, from the last one backwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from xaicli.queries.scores import SCORE, STALE, within_labels
from xaicli.queries.seen import SeenIds
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Place, Reader, Tally
from xaicli.vocabulary import EPOCH, LABEL, SAMPLE_ID, STEP, Duplicates

_KEPT_ROWS = 2_000_000
"""A run this small is read once and kept."""


class Epochwise:
    """One (mode, ds_id), read epoch by epoch in bounded memory."""

    def __init__(self, reader: Reader, selection: Selection, pair: Pair) -> None:
        self._reader = reader
        self._selection = selection
        self._pair = pair
        self._epochs = selection.epochs[pair]
        self._columns = list(dict.fromkeys([SAMPLE_ID, selection.label_key, *selection.metrics]))
        self._tallies: dict[int, Tally] = {}
        self._frames: dict[int, pl.DataFrame] = {}

    def last_scores(self, metric: str) -> pl.DataFrame:
        """Each sample's last finite value of a metric.

        Returns:
            sample_id, score (float64), stale (whether the value is of an earlier epoch than the last); one row a sample
            that has a finite value, in no particular order.
        """
        found = []
        seen = SeenIds()
        for epoch, frame in self._walk(self._epochs[::-1]):
            fresh = seen.unseen(frame[SAMPLE_ID])
            if not fresh.any():
                continue
            rows = within_labels(frame.filter(fresh), self._selection).filter(pl.col(metric).is_not_null())
            if rows.height:
                if self._selection.duplicates is Duplicates.ALL:
                    # The last of them is the sample's value.
                    rows = rows.unique(SAMPLE_ID, keep="last", maintain_order=True)
                seen.add(rows[SAMPLE_ID])
                stale = pl.lit(epoch != self._epochs[-1]).alias(STALE)
                found.append(rows.select(SAMPLE_ID, pl.col(metric).cast(pl.Float64).alias(SCORE), stale))
        if not found:
            ids = self._reader.dtypes.get(SAMPLE_ID, pl.Int64())
            return pl.DataFrame(schema={SAMPLE_ID: ids, SCORE: pl.Float64(), STALE: pl.Boolean()})
        return pl.concat(found)

    def histories(self, ids: pl.Series) -> pl.DataFrame:
        """Every row of some samples, epoch by epoch.

        Returns:
            sample_id, label (the selection's label key), epoch, step (the largest of the epoch), and each metric as
            float64 with null for a value that was not finite; ordered by epoch.
        """
        wanted = ids.implode()
        metrics = [pl.col(metric).cast(pl.Float64) for metric in self._selection.metrics]
        parts = []
        for epoch, frame in self._walk(self._epochs):
            step = self._reader.last_step(Place(*self._pair, epoch))
            rows = frame.filter(pl.col(SAMPLE_ID).is_in(wanted))
            label = pl.col(self._selection.label_key).alias(LABEL)
            times = [pl.lit(epoch, pl.Int32).alias(EPOCH), pl.lit(step, pl.Int64).alias(STEP)]
            parts.append(rows.select(SAMPLE_ID, label, *times, *metrics))
        if parts:
            return pl.concat(parts, how="vertical_relaxed")
        dtypes = {SAMPLE_ID: ids.dtype, LABEL: self._reader.dtypes.get(self._selection.label_key, pl.Null())}
        values = {metric: pl.Float64() for metric in self._selection.metrics}
        return pl.DataFrame(schema={**dtypes, EPOCH: pl.Int32(), STEP: pl.Int64(), **values})

    def count(self, tally: Tally) -> None:
        """Count what has been read, each epoch once."""
        for epoch in self._tallies.values():
            tally.add(epoch)

    def _walk(self, epochs: Sequence[int]) -> Iterator[tuple[int, pl.DataFrame]]:
        """The epochs' frames in this order, kept where they are small; epochs without rows are left out."""
        unread = [epoch for epoch in epochs if epoch not in self._frames]
        reading = self._read(unread)
        ahead: tuple[int, pl.DataFrame] | None = None
        for epoch in epochs:
            if ahead is None and epoch in unread:
                ahead = next(reading, None)
            if ahead and ahead[0] == epoch:
                yield ahead
                ahead = None
            elif epoch in self._frames:
                yield epoch, self._frames[epoch]

    def _read(self, epochs: Sequence[int]) -> Iterator[tuple[int, pl.DataFrame]]:
        frames = self._reader.epoch_frames(
            *self._pair, self._columns, epochs, duplicates=self._selection.duplicates, tallies=self._tallies
        )
        for epoch, frame in frames:
            if sum(kept.height for kept in self._frames.values()) + frame.height <= _KEPT_ROWS:
                self._frames[epoch] = frame
            yield epoch, frame
