"""Scores and histories where every epoch is one file of the very same samples in the same order, as after compaction.

Then the last epoch alone gives the scores, and a sample's place in it is its place everywhere: of the other epochs only
the footer and the row groups of the shown samples are read. What a footer must say for that, `xaicli.parquet` writes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from xaicli import parquet
from xaicli.errors import DamagedFileError
from xaicli.queries.scores import SCORE, STALE
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Piece, Place, Reader, Tally
from xaicli.reader.footers import Footer
from xaicli.reader.pieces import relative
from xaicli.vocabulary import EPOCH, LABEL, SAMPLE_ID, STEP

_THREADS = 3
"""Decoding leaves the interpreter lock; parsing footers does not."""


class NotAlignedError(Exception):
    """The epochs are not aligned, or cannot be read as if they were: read them one by one."""


@dataclass(frozen=True)
class _Glimpse:
    """What was read of one epoch: its footer, and each metric's values of the shown samples, null where missing."""

    footer: Footer
    values: list[np.ndarray[Any, np.dtype[np.float64]]]


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
            table = file.read(columns=columns)
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
        places = shown["_place"].to_numpy().astype(np.int64)
        with ThreadPoolExecutor(_THREADS) as pool:
            glimpses = list(pool.map(lambda epoch: self._glimpse(epoch, places), self._pieces))
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
            metric: np.concatenate([glimpse.values[number] for glimpse in glimpses])
            for number, metric in enumerate(metrics)
        }
        numbers = pl.DataFrame(values, schema=dict.fromkeys(metrics, pl.Float64()))
        found = epochs.join(fixed, how="cross", maintain_order="left_right").hstack(numbers)
        nulls = [pl.when(pl.col(metric).is_finite()).then(pl.col(metric)).alias(metric) for metric in metrics]
        return found.select(SAMPLE_ID, LABEL, EPOCH, STEP, *nulls)

    def count(self, tally: Tally) -> None:
        """Count the rows and non-finite values of all epochs, as their footers say."""
        tally.add(self._tally)

    def _glimpse(self, epoch: int, places: np.ndarray[Any, np.dtype[np.int64]]) -> _Glimpse:
        try:
            with self._opened(self._pieces[epoch]) as file:
                footer = Footer.of(file.metadata)
                if footer.sorted_ids != self._digest or footer.non_finite is None or footer.steps is None:
                    raise NotAlignedError
                present = [metric for metric in self._selection.metrics if metric in footer.non_finite]
                return _Glimpse(footer, self._values(file, present, places))
        except (DamagedFileError, FileNotFoundError) as error:
            raise NotAlignedError from error

    def _values(self, file: Any, present: list[str], places: np.ndarray[Any, np.dtype[np.int64]]) -> list[Any]:
        """Each metric at some row numbers as float64, NaN where it is missing.

        The names in the file's metadata are not asked for: that makes a cycle, which keeps a megabyte a file alive.
        """
        metrics = self._selection.metrics
        counts = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(counts)])
        of_place = np.searchsorted(starts, places, side="right") - 1
        groups = np.unique(of_place)
        # Where each wanted row group begins in what is read.
        begins = np.concatenate([[0], np.cumsum([counts[group] for group in groups])])[:-1]
        rows = begins[np.searchsorted(groups, of_place)] + places - starts[of_place]
        if len(groups) == 0 or not present:
            return [np.full(len(places), np.nan) for _ in metrics]
        table = file.read_row_groups(groups.tolist(), columns=present, use_threads=False)
        return [
            table.column(metric).to_numpy()[rows].astype(np.float64)
            if metric in present
            else np.full(len(places), np.nan)
            for metric in metrics
        ]
