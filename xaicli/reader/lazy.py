"""A run's files for engines that read by themselves: each verified as a whole before its path is handed out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from xaicli.errors import DamagedFileError
from xaicli.layout import DataFile, PartName, without_superseded
from xaicli.reader.holdings import Holdings
from xaicli.reader.pieces import Piece, Place
from xaicli.reader.schema import conform
from xaicli.reader.verified import VerifiedFiles
from xaicli.vocabulary import ATTEMPT, EPOCH, STEP

if TYPE_CHECKING:
    import pyarrow as pa

_TRIES = 5
_CAST = pl.ScanCastOptions(categorical_to_string="allow")


@dataclass(frozen=True)
class Sources:
    """Rows that an engine reads alike.

    Attributes:
        paths: Sound files, earlier pieces first.
        live: Copies of live segments.
        fence: Rows from this step on do not count; None where all do.
    """

    paths: tuple[Path, ...]
    live: tuple[pa.Table, ...]
    fence: int | None


def sources(run: Holdings, places: Sequence[Place]) -> list[Sources]:
    """The files and live segments of some places, grouped by fence; damaged files are noted and left out.

    Raises:
        DamagedFileError: A file is damaged and the reader is strict.
    """
    groups: dict[int | None, list[Piece]] = {}
    for piece in _sound(run, places):
        groups.setdefault(piece.fence, []).append(piece)
    return [
        Sources(
            tuple(piece.file.path for piece in group if piece.file),
            tuple(piece.live for piece in group if piece.live is not None),
            fence,
        )
        for fence, group in groups.items()
    ]


def scan(run: Holdings, places: Sequence[Place], columns: Sequence[str]) -> pl.LazyFrame:
    """The rows of some places, lazily: fenced, live ones included; duplicates and non-finite values untouched."""
    schema = pl.Schema({name: run.dtypes.get(name, pl.Null()) for name in dict.fromkeys([*columns, STEP])})
    parts = []
    for group in sources(run, places):
        lazy = pl.concat(_lazily(group, schema))
        parts.append(lazy if group.fence is None else lazy.filter(pl.col(STEP) < group.fence))
    return (pl.concat(parts) if parts else pl.LazyFrame(schema=schema)).select(columns)


def scan_folder(run: Holdings, folder: Path) -> pl.LazyFrame | None:
    """The rows of `scalars/` or of a table, lazily; None where there are no files.

    Files may differ in their columns. Rows that were taken back are left out where they say attempt, epoch and step.
    """
    names = {path: part for path in sorted(folder.glob("*.parquet")) if (part := PartName.parse(path.name))}
    kept = without_superseded(DataFile("", "", 0, part, path) for path, part in names.items())
    good, damaged = VerifiedFiles(run.layout).check([file.path for file in kept], run.records)
    for path, error in damaged:
        run.note(error, path)
    if not good:
        return None
    lazy = pl.concat([pl.scan_parquet(path, hive_partitioning=False) for path in good], how="diagonal_relaxed")
    texts = [name for name, dtype in lazy.collect_schema().items() if dtype == pl.Categorical]
    lazy = lazy.with_columns(pl.col(texts).cast(pl.String)) if texts else lazy
    if {ATTEMPT, EPOCH, STEP} <= set(lazy.collect_schema()):
        for back in run.take_backs:
            before = (pl.col(EPOCH) < back.epoch) | ((pl.col(EPOCH) == back.epoch) & (pl.col(STEP) < back.step))
            lazy = lazy.filter((pl.col(ATTEMPT) >= back.attempt) | before.fill_null(True))
    return lazy


def _sound(run: Holdings, places: Sequence[Place]) -> list[Piece]:
    """The pieces whose files are verified; after a compaction in between, those that replaced them."""
    files = VerifiedFiles(run.layout)
    for _ in range(_TRIES):
        wanted = [piece for place in places for piece in run.pieces(place)]
        try:
            good, damaged = files.check([piece.file.path for piece in wanted if piece.file], run.records)
        except FileNotFoundError:
            run.refresh()
            continue
        for path, error in damaged:
            run.note(error, path)
        kept = set(good)
        return [piece for piece in wanted if piece.file is None or piece.file.path in kept]
    raise DamagedFileError("files keep vanishing while they are read", hint="try again")


def _lazily(group: Sources, schema: pl.Schema) -> Iterable[pl.LazyFrame]:
    if group.paths:
        yield pl.scan_parquet(
            list(group.paths),
            schema=schema,
            missing_columns="insert",
            extra_columns="ignore",
            hive_partitioning=False,
            glob=False,
            cast_options=_CAST,
        )
    for table in group.live:
        frame = pl.DataFrame(pl.from_arrow(table.select([name for name in schema if name in table.column_names])))
        yield conform(frame, list(schema), schema).cast(schema).lazy()
