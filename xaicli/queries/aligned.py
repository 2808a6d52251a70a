"""Scores and histories where every epoch is one file of the very same samples in the same order, as after compaction.

Then the last epoch alone gives the scores, and a sample's place in it is its place everywhere: of the other epochs only
the footer and the pages of the shown samples are read. What a footer must say for that, `xaicli.parquet` writes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import polars as pl

from xaicli import parquet
from xaicli.errors import DamagedFileError
from xaicli.queries.scores import SCORE, STALE
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Piece, Place, Reader, Tally
from xaicli.reader.footers import Footer
from xaicli.reader.pages import ColumnChunk, UnlikeOursError, column_chunks, facts_of, values_at
from xaicli.reader.pieces import relative
from xaicli.vocabulary import EPOCH, LABEL, SAMPLE_ID, STEP


class NotAlignedError(Exception):
    """The epochs are not aligned, or cannot be read as if they were: read them one by one."""


@dataclass(frozen=True)
class _Glimpse:
    """What was read of one epoch: its footer, and each metric's values of the shown samples, null where missing."""

    footer: Footer
    values: list[list[float]]


class Aligned:
    """One (mode, ds_id) whose epochs are aligned.

    Raises:
        NotAlignedError: They are not; also raised by `histories`, which is the first to look at every epoch.
    """

    def __init__(self, reader: Reader, selection: Selection, pair: Pair) -> None:
        self._reader = reader
        self._selection = selection
        self._pair = pair
        self._pieces = {epoch: self._single(Place(*pair, epoch)) for epoch in selection.epochs[pair]}
        self._last = selection.epochs[pair][-1]
        # Labels and ids in which epochs may differ need every epoch's rows.
        if selection.label_map or selection.label_key not in reader.dtypes:
            raise NotAlignedError
        with self._opened(self._pieces[self._last]) as file:
            self._digest = Footer.of(file.metadata).sorted_ids
            columns = list(dict.fromkeys([SAMPLE_ID, selection.label_key, *selection.metrics]))
            if self._digest is None or not set(columns) <= set(file.schema_arrow.names):
                raise NotAlignedError
            table = parquet.decoded(file, columns)
        self._frame = pl.DataFrame(pl.from_arrow(table.select(columns)))
        for metric in selection.metrics:
            values = self._frame[metric]
            if values.null_count() or (values.dtype.is_float() and not values.is_finite().all()):
                raise NotAlignedError
        self._tally = Tally()

    def _single(self, place: Place) -> Piece:
        pieces = self._reader.pieces(place)
        if len(pieces) != 1 or pieces[0].file is None or pieces[0].fence is not None:
            raise NotAlignedError
        return pieces[0]

    def _opened(self, piece: Piece) -> Any:
        assert piece.file is not None
        path = relative(self._reader.layout, piece.file)
        return parquet.opened(piece.file.path, self._reader.records.get(path))

    def last_scores(self, metric: str) -> pl.DataFrame:
        """What `Epochwise.last_scores` gives; scores as wide as they are stored."""
        return self._frame.select(SAMPLE_ID, pl.col(metric).alias(SCORE), pl.lit(False).alias(STALE))

    def histories(self, ids: pl.Series) -> pl.DataFrame:
        """What `Epochwise.histories` gives.

        Raises:
            NotAlignedError: An epoch holds other samples, or its file is damaged or gone.
        """
        shown = self._frame.with_row_index("_place").filter(pl.col(SAMPLE_ID).is_in(ids.implode()))
        if shown.height < len(ids.unique()):
            raise NotAlignedError
        places = shown["_place"].to_list()
        glimpses = [self._glimpse(epoch, places) for epoch in self._pieces]
        metrics = self._selection.metrics
        for glimpse in glimpses:
            footer = glimpse.footer
            spoilt = sum((footer.non_finite or {}).get(metric, 0) for metric in metrics)
            self._tally.add(Tally(footer.rows, spoilt, 0))
        last_steps = [glimpse.footer.steps[1] if glimpse.footer.steps else None for glimpse in glimpses]
        epochs = pl.DataFrame(
            {EPOCH: list(self._pieces), STEP: last_steps}, schema={EPOCH: pl.Int32(), STEP: pl.Int64()}
        )
        fixed = shown.select(SAMPLE_ID, pl.col(self._selection.label_key).alias(LABEL))
        values = {
            metric: [value for glimpse in glimpses for value in glimpse.values[number]]
            for number, metric in enumerate(metrics)
        }
        numbers = pl.DataFrame(values, schema=dict.fromkeys(metrics, pl.Float64()))
        found = epochs.join(fixed, how="cross", maintain_order="left_right").hstack(numbers)
        nulls = [pl.when(pl.col(metric).is_finite()).then(pl.col(metric)).alias(metric) for metric in metrics]
        return found.select(SAMPLE_ID, LABEL, EPOCH, STEP, *nulls)

    def count(self, tally: Tally) -> None:
        """Count the rows and non-finite values of all epochs, as their footers say."""
        tally.add(self._tally)

    def _glimpse(self, epoch: int, places: list[int]) -> _Glimpse:
        piece = self._pieces[epoch]
        assert piece.file is not None
        path = piece.file.path
        record = self._reader.records.get(relative(self._reader.layout, piece.file))
        if record is None:
            raise NotAlignedError
        try:
            content = parquet.checked_footer(path, record)
            footer = Footer.said(facts_of(content), record.rows)
            if not footer or footer.sorted_ids != self._digest or footer.non_finite is None or footer.steps is None:
                raise NotAlignedError
            with path.open("rb", buffering=0) as file:
                values = [
                    _picked(file.fileno(), column_chunks(content, metric), places, footer.rows)
                    if metric in footer.non_finite
                    else [math.nan] * len(places)
                    for metric in self._selection.metrics
                ]
            return _Glimpse(footer, values)
        except (DamagedFileError, UnlikeOursError, OSError) as error:
            raise NotAlignedError from error


def _picked(file: int, chunks: list[ColumnChunk], places: list[int], rows: int) -> list[float]:
    """A metric at some row numbers of a file, ascending, NaN where it is null; only chunks that hold any are read."""
    found: list[float] = []
    passed = 0
    for chunk in chunks:
        last = bisect_left(places, passed + chunk.rows, len(found))
        if inside := [place - passed for place in places[len(found) : last]]:
            found += values_at(file, chunk, inside)
        passed += chunk.rows
    if passed != rows:
        raise UnlikeOursError
    return found
