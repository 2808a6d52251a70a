"""What samples are: the facts a run recorded, and those of a file beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from xaicli import parquet
from xaicli.errors import DamagedFileError, XaiError
from xaicli.layout import DataFile, PartName, without_superseded
from xaicli.reader import Reader
from xaicli.reader.pieces import foreign, relative
from xaicli.vocabulary import SAMPLE_ID
from xaicli.wal.records import live_records

_SUFFIXES = "CSV (.csv), Parquet (.parquet, .pq) or JSON lines (.jsonl, .ndjson)"


@dataclass(frozen=True)
class Facts:
    """Facts by sample.

    Attributes:
        frame: sample_id and a column a fact; one row a sample, the last value of each fact that is not null.
        changed: Facts of which some sample has several values, with how many samples.
        warnings: What the user should know of where they come from.
    """

    frame: pl.DataFrame
    changed: dict[str, int]
    warnings: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What is known of samples."""
        return tuple(name for name in self.frame.columns if name != SAMPLE_ID)


def read_facts(reader: Reader, file: str | os.PathLike[str] | None = None) -> Facts:
    """The facts of a run, those of the file, where there is one, over those recorded.

    Args:
        reader: The run. Damaged files are left out and noted.
        file: CSV, Parquet or JSON lines with a column `sample_id`.

    Raises:
        XaiError: The file cannot be read, has no sample ids, or knows no sample of the run's kind.
    """
    rows = list(_recorded(reader))
    if file is not None:
        rows.append(_of_file(Path(file), reader))
    kind = reader.dtypes.get(SAMPLE_ID, pl.Int64())
    if not rows:
        return Facts(pl.DataFrame(schema={SAMPLE_ID: kind}), {})
    every = pl.concat(_alike(rows), how="diagonal_relaxed")
    names = [name for name in every.columns if name != SAMPLE_ID]
    last = [pl.col(name).drop_nulls().last() for name in names]
    several = [(pl.col(name).drop_nulls().n_unique() > 1).alias(name) for name in names]
    frame = every.group_by(SAMPLE_ID, maintain_order=True).agg(last)
    counts = every.group_by(SAMPLE_ID).agg(several).select(pl.col(name).sum() for name in names)
    changed = {name: int(n) for name, n in zip(names, counts.row(0), strict=True) if n} if names else {}
    said = [f"{name} of {n:,} samples was recorded with several values: the last counts" for name, n in changed.items()]
    return Facts(frame, changed, tuple(said))


def _recorded(reader: Reader) -> Iterator[pl.DataFrame]:
    """The rows of `run.log_facts` in the order they were logged, those not in files yet last."""
    live, damaged = live_records(reader.layout, "facts")
    for path in damaged:
        name = path.relative_to(reader.layout.root).as_posix()
        reader.note(DamagedFileError(f"{name} is damaged", hint="see: xai doctor"), name)
    folder = reader.layout.facts
    named = {path: part for path in sorted(folder.glob("*.parquet")) if (part := PartName.parse(path.name))}
    for file in without_superseded(DataFile("", "", 0, part, path) for path, part in named.items()):
        place = relative(reader.layout, file)
        try:
            with parquet.opened(file.path, reader.records.get(place)) as opened:
                table = parquet.decoded(opened, list(opened.schema_arrow.names))
            if SAMPLE_ID not in table.column_names:
                raise foreign(place, {SAMPLE_ID})
        except DamagedFileError as error:
            reader.note(error, place)
            continue
        yield pl.DataFrame(pl.from_arrow(table))
    for table in live:
        yield pl.DataFrame(pl.from_arrow(table))


def _of_file(file: Path, reader: Reader) -> pl.DataFrame:
    try:
        match file.suffix.lower():
            case ".csv" | ".tsv":
                separator = "\t" if file.suffix.lower() == ".tsv" else ","
                frame = pl.read_csv(file, separator=separator, infer_schema_length=None, try_parse_dates=True)
            case ".parquet" | ".pq":
                frame = pl.read_parquet(file)
            case ".jsonl" | ".ndjson":
                frame = pl.read_ndjson(file, infer_schema_length=None)
            case other:
                raise XaiError(f"--facts {file}: {other or 'no suffix'} is no kind of table", hint=_SUFFIXES)
    except (OSError, pl.exceptions.PolarsError) as error:
        said = str(error).strip().splitlines()[0]
        raise XaiError(f"--facts {file} cannot be read: {said}", hint=_SUFFIXES) from error
    if SAMPLE_ID not in frame.columns:
        raise XaiError(f"--facts {file} has no column sample_id", hint=f"its columns: {', '.join(frame.columns)}")
    kind = reader.dtypes.get(SAMPLE_ID, pl.Int64())
    ids = frame[SAMPLE_ID].cast(kind, strict=False)
    frame = frame.with_columns(ids).filter(ids.is_not_null())
    if frame.is_empty():
        raise XaiError(f"--facts {file} has no sample id of the run's kind", hint=f"the run's ids are {kind}")
    return frame


def _alike(frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """The frames with each fact of one kind: as numbers where all are, else as text."""
    kinds: dict[str, set[pl.DataType]] = {}
    for frame in frames:
        for name, dtype in frame.schema.items():
            kinds.setdefault(name, set()).add(dtype)
    mixed = [
        name
        for name, dtypes in kinds.items()
        if len(dtypes - {pl.Null()}) > 1 and not all(dtype.is_numeric() for dtype in dtypes - {pl.Null()})
    ]
    return [
        frame.with_columns(pl.col(name).cast(pl.String) for name in mixed if name in frame.columns) for frame in frames
    ]
