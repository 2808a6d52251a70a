"""Scores and histories where every epoch is one pass and one file of the very same samples in the same order, as after
compaction.

Then the last epoch alone gives the scores, and a sample's place in it is its place everywhere: of the other epochs only
the footer and the pages of the shown samples are read. What a footer must say for that, `xaicli.parquet` writes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from xaicli import parquet
from xaicli.errors import DamagedFileError
from xaicli.queries.scores import SCORE, STALE
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Piece, Place, Reader, Tally
from xaicli.reader.pages import ColumnChunk, Footer, UnlikeOursError, column_chunks, facts_of, values_at
from xaicli.reader.pieces import relative
from xaicli.vocabulary import CORRECT, EPOCH, LABEL, PASS, SAMPLE_ID, STEP


class NotAlignedError(Exception):
    """The epochs are not aligned, or cannot be read as if they were: read them one by one."""


@dataclass(frozen=True)
class _Epoch:
    """The file of one epoch: all its bytes if it is small, what its footer says, and where each metric's values lie,
    None for one it lacks.
    """

    path: Path
    content: bytes | None
    footer: Footer
    chunks: list[list[ColumnChunk] | None]


class Aligned:
    """One (mode, ds_id) whose epochs are aligned.

    Raises:
        NotAlignedError: They are not.
    """

    def __init__(self, reader: Reader, selection: Selection, pair: Pair) -> None:
        self._reader = reader
        self._selection = selection
        pieces = {epoch: self._single(Place(*pair, epoch)) for epoch in selection.epochs[pair]}
        last = selection.epochs[pair][-1]
        # Conditions, labels and ids in which epochs may differ need every epoch's rows.
        labelled = selection.label_key in reader.dtypes and not selection.label_map
        if reader.where or not labelled or CORRECT in selection.metrics:
            raise NotAlignedError
        columns = list(dict.fromkeys([SAMPLE_ID, selection.label_key, *selection.metrics]))
        with self._opened(pieces[last]) as file, ThreadPoolExecutor(1) as thread:
            if not set(columns) <= set(file.schema_arrow.names):
                raise NotAlignedError
            # Decoding leaves the interpreter free for the other epochs' footers.
            decoding = thread.submit(parquet.decoded, file, columns)
            self._epochs = {epoch: self._epoch(piece) for epoch, piece in pieces.items()}
            table = decoding.result()
        digests = {epoch.footer.sorted_ids for epoch in self._epochs.values()}
        if len(digests) > 1 or None in digests:
            raise NotAlignedError
        self._frame = pl.DataFrame(pl.from_arrow(table.select(columns)))
        for metric in selection.metrics:
            values = self._frame[metric]
            if values.null_count() or (values.dtype.is_float() and not values.is_finite().all()):
                raise NotAlignedError

    def _single(self, place: Place) -> Piece:
        pieces = self._reader.pieces(place)
        if len(pieces) != 1 or pieces[0].file is None or pieces[0].fence is not None:
            raise NotAlignedError
        return pieces[0]

    def _opened(self, piece: Piece) -> Any:
        assert piece.file is not None
        return self._reader.opened(piece.file.path)

    def last_scores(self, metric: str) -> pl.DataFrame:
        """What `Epochwise.last_scores` gives; scores as wide as they are stored."""
        return self._frame.select(SAMPLE_ID, pl.col(metric).alias(SCORE), pl.lit(False).alias(STALE))

    def histories(self, ids: pl.Series) -> pl.DataFrame:
        """What `Epochwise.histories` gives.

        Raises:
            NotAlignedError: A file cannot be read as the footer says.
        """
        wanted = self._frame[SAMPLE_ID].is_in(ids.implode())
        shown, places = self._frame.filter(wanted), wanted.arg_true().to_list()
        if shown.height < len(ids.unique()):
            raise NotAlignedError
        picked = [_picked(epoch, places) for epoch in self._epochs.values()]
        metrics = self._selection.metrics
        passes = [epoch.footer.passes[0] for epoch in self._epochs.values()]
        last_steps = [epoch.footer.steps[1] if epoch.footer.steps else None for epoch in self._epochs.values()]
        epochs = pl.DataFrame(
            {EPOCH: list(self._epochs), PASS: passes, STEP: last_steps},
            schema={EPOCH: pl.Int32(), PASS: pl.Int16(), STEP: pl.Int64()},
        )
        fixed = shown.select(SAMPLE_ID, pl.col(self._selection.label_key).alias(LABEL))
        values = {
            metric: [value for values in picked for value in values[number]] for number, metric in enumerate(metrics)
        }
        numbers = pl.DataFrame(values, schema=dict.fromkeys(metrics, pl.Float64()))
        found = epochs.join(fixed, how="cross", maintain_order="left_right").hstack(numbers)
        nulls = [pl.when(pl.col(metric).is_finite()).then(pl.col(metric)).alias(metric) for metric in metrics]
        return found.select(SAMPLE_ID, LABEL, EPOCH, PASS, STEP, *nulls)

    def count(self, tally: Tally) -> None:
        """Count the rows and non-finite values of all epochs, as their footers say."""
        for epoch in self._epochs.values():
            non_finite = epoch.footer.non_finite or {}
            tally.add(Tally(epoch.footer.rows, sum(non_finite.get(metric, 0) for metric in self._selection.metrics), 0))

    def _epoch(self, piece: Piece) -> _Epoch:
        assert piece.file is not None
        path = piece.file.path
        record = self._reader.records.get(relative(self._reader.layout, piece.file))
        if record is None:
            raise NotAlignedError
        try:
            whole = self._reader.contents.of(path)
            content = parquet.checked_footer(path, record, whole)
        except (DamagedFileError, OSError) as error:
            raise NotAlignedError from error
        footer = Footer.parsed(facts_of(content), record.rows)
        if not footer or footer.non_finite is None or footer.steps is None or len(footer.passes) > 1:
            raise NotAlignedError
        known = footer.non_finite
        chunks = [column_chunks(content, metric) if metric in known else None for metric in self._selection.metrics]
        return _Epoch(path, whole, footer, chunks)


def _picked(epoch: _Epoch, places: list[int]) -> list[list[float]]:
    """Each metric at some row numbers of a file, ascending, NaN where it is null; only chunks that hold any are read.

    Raises:
        NotAlignedError: The file is not as its footer says, or gone.
    """
    try:
        with ExitStack() as stack:
            file = epoch.content or stack.enter_context(epoch.path.open("rb", buffering=0)).fileno()
            return [
                [math.nan] * len(places) if chunks is None else _of_chunks(file, chunks, places, epoch)
                for chunks in epoch.chunks
            ]
    except (UnlikeOursError, OSError) as error:
        raise NotAlignedError from error


def _of_chunks(file: int | bytes, chunks: list[ColumnChunk], places: list[int], epoch: _Epoch) -> list[float]:
    found: list[float] = []
    passed = 0
    for chunk in chunks:
        last = bisect_left(places, passed + chunk.rows, len(found))
        if inside := [place - passed for place in places[len(found) : last]]:
            found += values_at(file, chunk, inside)
        passed += chunk.rows
    if passed != epoch.footer.rows:
        raise UnlikeOursError
    return found
