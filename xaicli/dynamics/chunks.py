"""The rows of a run in pieces small enough to forget: one after another, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import polars as pl

from xaicli.errors import DamagedFileError
from xaicli.queries.selection import Pair, Selection
from xaicli.queries.walk import within_labels
from xaicli.reader import Piece, Place, Reader, Tally
from xaicli.reader.footers import Footer
from xaicli.reader.pieces import relative
from xaicli.reader.schema import conform, finite
from xaicli.vocabulary import STEP

T = TypeVar("T")

_ROWS = 1 << 16
"""Rows of a large file read at a time."""


class DamageFoundError(Exception):
    """A file turned out to be damaged after some of its rows were given out: what they went into must be redone."""


@dataclass(frozen=True)
class Chunk:
    """Some rows of one place; no sample is in two chunks of a place.

    Attributes:
        epoch: The epoch.
        frame: The rows: non-finite metric values are null, duplicates resolved.
        complete: Whether these are the last rows of the place.
        epoch_rows: How many rows the place has, as far as its files say before they are read; else those given here.
    """

    epoch: int
    frame: pl.DataFrame
    complete: bool
    epoch_rows: int


def chunks(reader: Reader, selection: Selection, pair: Pair, columns: Sequence[str], tally: Tally) -> Iterator[Chunk]:
    """The selected rows of one (mode, ds_id) in the order of epochs, each chunk read while the one before is used.

    An epoch in one compacted file comes in several chunks, any other in one for each of its passes.

    Raises:
        DamageFoundError: A file is damaged, now noted and left out by the reader: start again.
        DamagedFileError: A file is damaged and the reader is strict.
    """
    return _ahead(_chunks(reader, selection, pair, columns, tally))


def _chunks(reader: Reader, selection: Selection, pair: Pair, columns: Sequence[str], tally: Tally) -> Iterator[Chunk]:
    for epoch in selection.epochs[pair]:
        place = Place(*pair, epoch)
        pieces = reader.pieces(place)
        plain = len(pieces) == 1 and reader.where is None and len(reader.turns(place)) < 2
        if plain and pieces[0].file is not None:
            begun = False
            try:
                for chunk in _of_file(reader, selection, pieces[0], columns, tally):
                    begun = True
                    yield chunk
            except (DamagedFileError, FileNotFoundError) as error:
                if begun:
                    reader.refresh()
                    if isinstance(error, DamagedFileError):
                        reader.note(error, relative(reader.layout, pieces[0].file))
                    raise DamageFoundError from error
            if begun:
                continue
        for rows in reader.of_epoch(place, columns, selection.duplicates):
            tally.add(rows.tally)
            yield Chunk(epoch, within_labels(rows.frame, selection), True, rows.frame.height)


def _of_file(
    reader: Reader, selection: Selection, piece: Piece, columns: Sequence[str], tally: Tally
) -> Iterator[Chunk]:
    """The rows of a file in which no sample repeats; nothing for any other file."""
    assert piece.file is not None
    path = relative(reader.layout, piece.file)
    wanted = list(dict.fromkeys([*columns, *([] if piece.fence is None else [STEP])]))
    if path in reader.damaged:
        return
    with reader.opened(piece.file.path) as file:
        rows = file.metadata.num_rows
        footer = Footer.of(file.metadata)
        if footer.sorted_ids is None:
            return
        sound = footer.non_finite is not None and not any(footer.non_finite.values())
        left = rows
        # In this thread alone: it is ahead of the work anyway, and each of Arrow's threads keeps megabytes.
        for batch in file.iter_batches(_ROWS, columns=wanted, use_threads=False):
            left -= batch.num_rows
            read = pl.DataFrame(pl.from_arrow(batch))
            kept = read if piece.fence is None else read.filter(pl.col(STEP) < piece.fence)
            rows_read = conform(kept, columns, reader.dtypes)
            frame, n = (rows_read, 0) if sound else finite(rows_read, reader.metrics)
            tally.add(Tally(frame.height, n, 0))
            yield Chunk(piece.place.epoch, within_labels(frame, selection), left == 0, rows)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next one made in another thread while one is used."""
    with ThreadPoolExecutor(1) as maker:
        following = maker.submit(next, items, None)
        while (item := following.result()) is not None:
            following = maker.submit(next, items, None)
            yield item
            del item
