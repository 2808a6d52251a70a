"""Scores and the extremes among them, and histories: by polars, place by place, from the last one backwards."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from typing import cast

import numpy as np
import polars as pl

from xaicli.queries.rows import walk, within_labels
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Reader, Rows, Tally
from xaicli.vocabulary import EPOCH, LABEL, PASS, SAMPLE_ID, STEP, Duplicates

SCORE = "score"
STALE = "stale"


_DIGITS = 12
"""Computed scores that agree to so many digits are equal: engines and orders of summing differ in the last ones."""


def comparable(score: pl.Expr) -> pl.Expr:
    """Computed scores (float64) as they are compared."""
    return score.round_sig_figs(_DIGITS)


def extremes(scores: pl.DataFrame, n: int, *, highest: bool, computed: bool = True) -> pl.DataFrame:
    """The n highest or lowest scores, best first; of equal scores the smaller sample_id first.

    Args:
        scores: sample_id, score and more; scores finite.
        n: How many; fewer when there are fewer.
        computed: Whether they are computed from several values, and equal but for the last digits where equal.
    """
    n = min(n, scores.height)
    if n == 0:
        return scores.clear()
    score = scores[SCORE]
    # The n-th best bounds the candidates, so that only these are sorted.
    bound = cast(float, score.top_k(n).min() if highest else score.bottom_k(n).max())
    slack = abs(bound) * 10.0 ** (2 - _DIGITS) if computed and math.isfinite(bound) else 0.0
    candidates = scores.filter(pl.col(SCORE) >= bound - slack if highest else pl.col(SCORE) <= bound + slack)
    by = comparable(pl.col(SCORE)) if computed else pl.col(SCORE)
    return candidates.sort(by, SAMPLE_ID, descending=[highest, False]).head(n)


_KEPT_ROWS = 2_000_000
"""A run this small is read once and kept."""
_SPREAD = 8
"""Integer ids whose range is at most this many times their number are marked in a table; others are hashed."""


class Epochwise:
    """One (mode, ds_id), read place by place in bounded memory."""

    def __init__(self, reader: Reader, selection: Selection, pair: Pair) -> None:
        self._reader = reader
        self._selection = selection
        self._pair = pair
        self._epochs = selection.epochs[pair]
        self._columns = list(dict.fromkeys([SAMPLE_ID, selection.label_key, *selection.metrics]))
        self._tallies: dict[int, Tally] = {}
        self._kept: dict[int, list[Rows]] = {}

    def last_scores(self, metric: str | pl.Expr, *, with_label: bool = False) -> pl.DataFrame:
        """Each sample's last finite value of a metric.

        Args:
            metric: The metric, or what is made of the columns read: ids, the label key and the metrics selected.
            with_label: Whether the label of the same row is told.

        Returns:
            sample_id, score (float64), stale (whether the value is of an earlier epoch than the last), and label (the
            selection's label key) where it is told; one row a sample that has a finite value, in no particular order.
        """
        key = self._selection.label_key
        label = [pl.col(key).alias(LABEL)] if with_label else []
        value = pl.col(metric) if isinstance(metric, str) else metric
        found = []
        seen = SeenIds()
        for place, _, frame, _ in self._walk(backwards=True):
            fresh = seen.unseen(frame[SAMPLE_ID])
            if not fresh.any():
                continue
            rows = within_labels(frame.filter(fresh), self._selection).filter(value.is_not_null())
            if rows.height:
                if self._selection.duplicates is Duplicates.ALL:
                    # The last of them is the sample's value.
                    rows = rows.unique(SAMPLE_ID, keep="last", maintain_order=True)
                seen.add(rows[SAMPLE_ID])
                stale = pl.lit(place.epoch != self._epochs[-1]).alias(STALE)
                found.append(rows.select(SAMPLE_ID, value.cast(pl.Float64).alias(SCORE), stale, *label))
        if not found:
            ids = self._reader.dtypes.get(SAMPLE_ID, pl.Int64())
            told = {LABEL: self._reader.dtypes.get(key, pl.Null())} if with_label else {}
            return pl.DataFrame(schema={SAMPLE_ID: ids, SCORE: pl.Float64(), STALE: pl.Boolean(), **told})
        return pl.concat(found, how="vertical_relaxed" if with_label else "vertical")

    def histories(self, ids: pl.Series) -> pl.DataFrame:
        """Every row of some samples, place by place.

        Returns:
            sample_id, label (the selection's label key), epoch, pass, step (the largest of the place), and each metric
            as float64 with null for a value that was not finite; in the order of places.
        """
        wanted = ids.implode()
        metrics = [pl.col(metric).cast(pl.Float64) for metric in self._selection.metrics]
        parts = []
        for rows in self._walk():
            found = rows.frame.filter(pl.col(SAMPLE_ID).is_in(wanted))
            label = pl.col(self._selection.label_key).alias(LABEL)
            parts.append(found.select(SAMPLE_ID, label, *rows.times, *metrics))
        if parts:
            return pl.concat(parts, how="vertical_relaxed")
        dtypes = {SAMPLE_ID: ids.dtype, LABEL: self._reader.dtypes.get(self._selection.label_key, pl.Null())}
        values = {metric: pl.Float64() for metric in self._selection.metrics}
        return pl.DataFrame(schema={**dtypes, EPOCH: pl.Int32(), PASS: pl.Int16(), STEP: pl.Int64(), **values})

    def count(self, tally: Tally) -> None:
        """Count what has been read, each epoch once."""
        for epoch in self._tallies.values():
            tally.add(epoch)

    def _walk(self, *, backwards: bool = False) -> Iterator[Rows]:
        """The places in order, or the last first; read once where they are small."""
        step = -1 if backwards else 1
        unread = [epoch for epoch in self._epochs if epoch not in self._kept]
        frames = walk(
            self._reader,
            self._selection,
            self._pair,
            self._columns,
            epochs=unread,
            backwards=backwards,
            limited=False,
            tallies=self._tallies,
        )
        reading = groupby(frames, key=lambda rows: rows.place.epoch)
        ahead = None
        for epoch in self._epochs[::step]:
            if epoch in self._kept:
                yield from self._kept[epoch][::step]
                continue
            ahead = ahead or next(reading, None)
            if ahead and ahead[0] == epoch:
                yield from self._keeping(epoch, ahead[1], step)
                ahead = None

    def _keeping(self, epoch: int, found: Iterator[Rows], step: int) -> Iterator[Rows]:
        """An epoch's passes, kept while there is room for all of them."""
        room = _KEPT_ROWS - sum(rows.frame.height for kept in self._kept.values() for rows in kept)
        kept = []
        for rows in found:
            room -= rows.frame.height
            if room >= 0:
                kept.append(rows)
            yield rows
        if room >= 0:
            self._kept[epoch] = kept[::step]


class SeenIds:
    """The ids added so far, all of one kind."""

    def __init__(self) -> None:
        self._ids: pl.Series | None = None
        self._low = 0
        self._table: np.ndarray[tuple[int], np.dtype[np.bool_]] | None = None

    def unseen(self, ids: pl.Series) -> pl.Series:
        """Which of the ids are not in the set: a boolean for each."""
        if self._ids is None or ids.is_empty():
            return pl.Series([True]).new_from_index(0, len(ids))
        if self._table is None:
            return ~ids.is_in(self._ids.implode())
        values = ids.to_numpy()
        if values.min() >= self._low and values.max() < self._low + len(self._table):
            return pl.Series(~self._table[values - self._low])
        places = values - self._low
        inside = (places >= 0) & (places < len(self._table))
        return pl.Series(~(self._table[np.where(inside, places, 0)] & inside))

    def add(self, ids: pl.Series) -> None:
        """Put ids into the set."""
        self._ids = ids if self._ids is None else pl.concat([self._ids, ids])
        self._table = None
        if not ids.dtype.is_integer() or self._ids.is_empty():
            return
        values = self._ids.to_numpy()
        low, high = int(values.min()), int(values.max())
        if high - low < max(_SPREAD * len(values), 1024):
            self._low = low
            self._table = np.zeros(high - low + 1, dtype=np.bool_)
            self._table[values - low] = True
