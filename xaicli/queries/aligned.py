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
from xaicli.reader import Piece, Place, Reader, Tally, footers
from xaicli.reader.pieces import relative
from xaicli.vocabulary import EPOCH, LABEL, SAMPLE_ID, STEP

_THREADS = 3
"""Decoding leaves the interpreter lock; parsing footers does not."""


class NotAlignedError(Exception):
    """The epochs are not aligned, or cannot be read as if they were: read them one by one."""


@dataclass(frozen=True)
class _Glimpse:
    """What was read of one epoch: its last step, its counts, and the shown samples' values."""

    step: int
    tally: Tally
    values: pl.DataFrame


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
            self._digest = footers.sorted_ids(file.metadata)
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
        """What `Epochwise.last_scores` gives."""
        score = pl.col(metric).cast(pl.Float64).alias(SCORE)
        return self._frame.select(SAMPLE_ID, score, pl.lit(False).alias(STALE))

    def histories(self, ids: pl.Series) -> pl.DataFrame:
        """What `Epochwise.histories` gives.

        Raises:
            NotAlignedError: An epoch holds other samples, or its file is damaged or gone.
        """
        shown = self._frame.with_row_index("_place").filter(pl.col(SAMPLE_ID).is_in(ids.implode()))
        if shown.height < len(ids.unique()):
            raise NotAlignedError
        places = shown["_place"].to_numpy().astype(np.int64)
        fixed = shown.select(SAMPLE_ID, pl.col(self._selection.label_key).alias(LABEL))
        with ThreadPoolExecutor(_THREADS) as pool:
            glimpses = list(pool.map(lambda epoch: self._glimpse(epoch, places), self._pieces))
        parts = []
        for epoch, glimpse in zip(self._pieces, glimpses, strict=True):
            self._tally.add(glimpse.tally)
            times = [pl.lit(epoch, pl.Int32).alias(EPOCH), pl.lit(glimpse.step, pl.Int64).alias(STEP)]
            parts.append(fixed.with_columns(times).hstack(glimpse.values))
        return pl.concat(parts)

    def count(self, tally: Tally) -> None:
        """Count the rows and non-finite values of all epochs, as their footers say."""
        tally.add(self._tally)

    def _glimpse(self, epoch: int, places: np.ndarray[Any, np.dtype[np.int64]]) -> _Glimpse:
        try:
            with self._opened(self._pieces[epoch]) as file:
                metadata = file.metadata
                facts = footers.non_finite(metadata), footers.steps(metadata)
                if footers.sorted_ids(metadata) != self._digest or facts[0] is None or facts[1] is None:
                    raise NotAlignedError
                spoilt = sum(facts[0].get(metric, 0) for metric in self._selection.metrics)
                values = self._values(file, places)
        except (DamagedFileError, FileNotFoundError) as error:
            raise NotAlignedError from error
        return _Glimpse(facts[1][1], Tally(int(metadata.num_rows), spoilt, 0), values)

    def _values(self, file: Any, places: np.ndarray[Any, np.dtype[np.int64]]) -> pl.DataFrame:
        """The metrics at some row numbers, as float64, null where not finite."""
        metrics = self._selection.metrics
        present = [metric for metric in metrics if metric in file.schema_arrow.names]
        counts = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(counts)])
        of_place = np.searchsorted(starts, places, side="right") - 1
        groups = np.unique(of_place)
        # Where each wanted row group begins in what is read.
        begins = np.concatenate([[0], np.cumsum([counts[group] for group in groups])])[:-1]
        rows = begins[np.searchsorted(groups, of_place)] + places - starts[of_place]
        table = file.read_row_groups(groups.tolist(), columns=present, use_threads=False)
        found = pl.DataFrame(pl.from_arrow(table)) if present else pl.DataFrame()
        return pl.DataFrame(
            [
                _finite(found[metric].gather(rows)) if metric in present else _nothing(metric, len(places))
                for metric in metrics
            ]
        )


def _finite(values: pl.Series) -> pl.Series:
    wide = values.cast(pl.Float64)
    return wide.set(~wide.is_finite(), None)


def _nothing(metric: str, n: int) -> pl.Series:
    return pl.Series(metric, [None] * n, dtype=pl.Float64)
