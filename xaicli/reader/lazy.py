"""A run's files for engines that read by themselves: each verified as a whole before its path is handed out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from xaicli.errors import DamagedFileError
from xaicli.files import for_arrow
from xaicli.locks import Reading
from xaicli.reader.holdings import Holdings
from xaicli.reader.pieces import Piece, Place
from xaicli.reader.rows import conform
from xaicli.takeback import TakeBack, TakenBack
from xaicli.vocabulary import ATTEMPT, DS_ID, EPOCH, MODE, PASS, SAMPLE_ID, STEP

if TYPE_CHECKING:
    import pyarrow as pa


FOLDER_COLUMNS = (MODE, DS_ID, EPOCH)
"""What rows have in common with all others of their folder; files need not say it again."""
_CAST = pl.ScanCastOptions(categorical_to_string="allow", float_cast="upcast")


@dataclass(frozen=True)
class Source:
    """Rows of one epoch that an engine reads.

    Attributes:
        place: Their mode, ds_id and epoch, which the rows need not say.
        path: A sound file; None for a live segment.
        live: The copy of a live segment; None for a file.
        fence: Rows from this step on do not count; None where all do.
    """

    place: Place
    path: Path | None
    live: pa.Table | None
    fence: int | None


def sources(run: Holdings, places: Sequence[Place]) -> list[Source]:
    """The files and live segments of some epochs, in the order of places and logging; damaged files are left out.

    Raises:
        DamagedFileError: A file is damaged and the reader is strict.
    """
    root = run.layout.root
    if root not in _handed_out:
        _handed_out[root] = Reading(run.layout.data)
    return [
        Source(piece.place, piece.file.path if piece.file else None, piece.live, piece.fence)
        for piece in sound_pieces(run, places)
    ]


_handed_out: dict[Path, Reading] = {}
"""The runs whose files this process was told by name: when an engine opens them, nobody knows."""


def scan(run: Holdings, places: Sequence[Place], columns: Sequence[str]) -> pl.LazyFrame:
    """The rows of some epochs, lazily: live ones included, none that were taken back; duplicates and non-finite values
    untouched.
    """
    wanted = list(dict.fromkeys(columns))
    schema = pl.Schema({name: run.stored.get(name, pl.Null()) for name in dict.fromkeys([*wanted, STEP])})
    alike: dict[tuple[Place, int | None], list[Source]] = {}
    for source in sources(run, places):
        alike.setdefault((source.place, source.fence), []).append(source)
    parts = []
    for (place, fence), group in alike.items():
        stored = pl.Schema({name: dtype for name, dtype in schema.items() if name not in FOLDER_COLUMNS})
        lazy = pl.concat(_lazily(run, group, stored))
        if fence is not None:
            lazy = lazy.filter(pl.col(STEP) < fence)
        known = {MODE: pl.lit(place.mode), DS_ID: pl.lit(place.ds_id), EPOCH: pl.lit(place.epoch, pl.Int32)}
        told = [value.alias(name) for name, value in known.items() if name in wanted]
        passes = [pl.col(PASS).fill_null(0)] if PASS in wanted else []
        parts.append(lazy.with_columns(*told, *passes).select(wanted))
    return pl.concat(parts) if parts else pl.LazyFrame(schema=schema).select(wanted)


def scan_folder(run: Holdings, folder: Path) -> pl.LazyFrame | None:
    """The rows of `scalars/` or of a table, lazily; None where there are no files.

    Files may differ in their columns; those that are not the run's, and those that are gone, are noted. Rows that were
    taken back are left out: see `taken_back_of`.
    """
    return _divided(run, folder)[0]


BY_ROW = "\0by_row"
"""A column beside those of a table: whether a row says no sample but the number of its row in the table collected."""
_EXAMPLE_ID = "example_id"


def scan_table(run: Holdings, folder: Path, *, marked: bool = False) -> pl.LazyFrame | None:
    """The rows of a metrics table as `scan_folder` gives them, each with the sample it is of.

    One table may be collected with ids and without: where a row has no `sample_id`, its `example_id` stands for it, as
    in a table without that column, of the kind of the other rows' ids.

    Args:
        run: The run.
        folder: The table's.
        marked: Whether a column `BY_ROW` says of which rows that is so.
    """
    lazy = scan_folder(run, folder)
    if lazy is None:
        return None
    kinds, by_row = lazy.collect_schema(), pl.lit(False)
    samples = []
    if SAMPLE_ID in kinds and _EXAMPLE_ID in kinds:
        number, kind = pl.col(_EXAMPLE_ID), kinds[SAMPLE_ID]
        samples = [pl.coalesce(SAMPLE_ID, number if kind == pl.Null else number.cast(kind)).alias(SAMPLE_ID)]
        by_row = pl.col(SAMPLE_ID).is_null() & number.is_not_null()
    return lazy.with_columns(*samples, *([by_row.alias(BY_ROW)] if marked else []))


def taken_back_of(run: Holdings, table: str) -> tuple[TakenBack, ...]:
    """How many rows of a metrics table each attempt took back of each earlier one.

    A row is of the attempt, epoch and step that it says, or of the attempt that wrote its file. One without an epoch is
    of no moment, and never taken back. One without a step may be of the beginning of an epoch that is gone on with: it
    is taken back where the epoch begins anew, or has rows of the later attempt in this table, too.
    """
    if not run.take_backs:
        return ()  # and no file is opened again
    found = []
    for back, taken in _divided(run, run.table_folders()[table])[1]:
        counts = taken.group_by(_WRITTEN_BY).len().sort(_WRITTEN_BY).collect(engine="streaming")
        found += [TakenBack(back.attempt, by, back.epoch, back.step, rows, table) for by, rows in counts.iter_rows()]
    return tuple(found)


_WRITTEN_BY = "\0attempt"
"""A column beside those of a table: the attempt that a row is of."""


def _divided(run: Holdings, folder: Path) -> tuple[pl.LazyFrame | None, list[tuple[TakeBack, pl.LazyFrame]]]:
    """The rows of a folder that count, and those that each attempt took back."""
    written_by = {file.path: file.part.attempt for file in run.record_files(folder)}
    good, damaged = run.verified.check(list(written_by), run.records)
    for path, error in damaged:
        run.note(error, path)
    if not good:
        return None, []
    files = [pl.scan_parquet(run.contents.of(path) or for_arrow(path), hive_partitioning=False) for path in good]
    if run.take_backs:
        by = [pl.lit(written_by[path], pl.Int16).alias(_WRITTEN_BY) for path in good]
        files = [file.with_columns(attempt) for file, attempt in zip(files, by, strict=True)]
    lazy = pl.concat(files, how="diagonal_relaxed")
    kinds = lazy.collect_schema()
    texts = [name for name, dtype in kinds.items() if dtype == pl.Categorical]
    lazy = lazy.with_columns(pl.col(texts).cast(pl.String)) if texts else lazy
    if not run.take_backs:
        return lazy, []
    lost = []
    whole = {name for name, kind in kinds.items() if kind.is_integer()}
    if EPOCH in whole:
        if ATTEMPT in whole:
            said = pl.col(ATTEMPT).cast(pl.Int16, strict=False)
            lazy = lazy.with_columns(pl.coalesce(said, _WRITTEN_BY).alias(_WRITTEN_BY))
        for back in run.take_backs:
            earlier, within = pl.col(_WRITTEN_BY) < back.attempt, pl.col(EPOCH) == back.epoch
            again = pl.lit(True) if run.begins_anew(back) else (~earlier & within).any()
            behind = (pl.col(STEP) >= back.step).fill_null(again) if STEP in whole else again
            taken = (earlier & ((pl.col(EPOCH) > back.epoch) | (within & behind))).fill_null(False)
            lost.append((back, lazy.filter(taken)))
            lazy = lazy.filter(~taken)
    return lazy.drop(_WRITTEN_BY), lost


def sound_pieces(run: Holdings, places: Sequence[Place]) -> list[Piece]:
    """The pieces whose files are verified; after a compaction in between, those that replaced them."""

    def checked() -> tuple[list[Piece], set[Path], list[tuple[str, DamagedFileError]]]:
        wanted = [piece for place in places for piece in run.pieces(place)]
        good, damaged = run.verified.check([piece.file.path for piece in wanted if piece.file], run.records)
        return wanted, set(good), damaged

    wanted, good, damaged = run.while_files_last(checked)
    for path, error in damaged:
        run.note(error, path)
    return [piece for piece in wanted if piece.file is None or piece.file.path in good]


def _lazily(run: Holdings, group: Sequence[Source], schema: pl.Schema) -> Iterable[pl.LazyFrame]:
    if paths := [source.path for source in group if source.path]:
        held = [content for path in paths if (content := run.contents.of(path)) is not None]
        yield pl.scan_parquet(
            held if len(held) == len(paths) else [for_arrow(path) for path in paths],
            schema=schema,
            missing_columns="insert",
            extra_columns="ignore",
            hive_partitioning=False,
            glob=False,
            cast_options=_CAST,
        )
    for source in group:
        if source.live is not None:
            frame = pl.DataFrame(
                pl.from_arrow(source.live.select([name for name in schema if name in source.live.column_names]))
            )
            yield conform(frame, list(schema), schema).cast(schema).lazy()
