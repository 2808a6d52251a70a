"""The samples of a run as files other tools read: CSV, Parquet, JSON; long, or one row per sample.

Long exports are written epoch by epoch, so memory does not grow with the run; one row per sample needs all of its
values at once. A file appears complete or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import IO, TypeVar, assert_never

import polars as pl

from xaicli.answer import Answer
from xaicli.errors import UsageError, XaiError
from xaicli.files import appearing
from xaicli.queries.names import named, names_of_labels
from xaicli.queries.rows import within_labels
from xaicli.queries.selection import Pair, Selection, polars_only
from xaicli.reader import Place, Reader, Rows, Tally
from xaicli.vocabulary import (
    CORRECT,
    DS_ID,
    EPOCH,
    LABEL,
    MODE,
    PASS,
    PREDICTION,
    SAMPLE_ID,
    STEP,
    Duplicates,
    fact_columns,
)
from xaicli.words import FORMULA, NUMBER, guarded, spelled

_LABEL_NAME = "label_name"
_BESIDE = (LABEL, PREDICTION, CORRECT)


class ExportFormat(StrEnum):
    """The file formats."""

    CSV = "csv"
    PARQUET = "parquet"
    JSONL = "jsonl"
    JSON = "json"


class Shape(StrEnum):
    """What a row is: one sample in one epoch, or one sample with a column per metric and epoch."""

    LONG = "long"
    WIDE = "wide"


def export(
    reader: Reader,
    selection: Selection,
    target: Path | IO[bytes],
    *,
    format: ExportFormat,
    shape: Shape = Shape.LONG,
    tally: Tally | None = None,
) -> int:
    """Write the selected rows.

    Long columns: mode, ds_id, sample_id, epoch, pass, step, label, prediction, correct (where recorded), the metrics,
    the facts. Wide: mode, ds_id, sample_id, label (of the last epoch), `<metric>_<epoch>`, `<metric>_<epoch>.<pass>`
    for later passes of an epoch, the facts. Where the selection names labels, `label_name` stands beside the label. In
    CSV, text that a spreadsheet would run as a formula gets an apostrophe in front, and a set of classes is a JSON
    list; JSON has null for non-finite numbers.

    Args:
        target: The file to make, or an open binary stream.
        tally: What counts rows, non-finite values and duplicates.

    Returns:
        How many rows were written.

    Raises:
        UsageError: Every duplicate is to count, and a row is a sample.
        XaiError: The file cannot be written.
    """
    if shape is Shape.WIDE and selection.duplicates is Duplicates.ALL:
        raise UsageError(
            "--duplicates all has no place where a row is a sample",
            hint="--shape long has a row of each, --duplicates last takes the last",
        )
    n = 0

    def counted() -> Iterator[pl.DataFrame]:
        nonlocal n
        for frame in _long(reader, selection, tally) if shape is Shape.LONG else _wide(reader, selection, tally):
            n += frame.height
            yield _with_names(frame, reader, selection, selection.label_key if shape is Shape.LONG else LABEL)

    frames = counted()
    if not isinstance(target, Path):
        _write(frames, target, format)
        return n
    try:
        with appearing(target) as stream:
            _write(frames, stream, format)
    except OSError as error:
        said = f"{error.filename or target} cannot be written: {error.strerror or error}"
        raise XaiError(said, hint="choose another place with -o") from error
    return n


def _with_names(frame: pl.DataFrame, reader: Reader, selection: Selection, key: str) -> pl.DataFrame:
    """The rows, and where the caller names the labels, those names beside them."""
    if not selection.label_map or key not in frame.columns or _LABEL_NAME in frame.columns:
        return frame
    names = named(frame[key], names_of_labels(reader, selection)).cast(pl.String).alias(_LABEL_NAME)
    place = frame.columns.index(key) + 1
    return frame.select(*frame.columns[:place], names, *frame.columns[place:])


def _long(reader: Reader, selection: Selection, tally: Tally | None) -> Iterator[pl.DataFrame]:
    beside = [name for name in _BESIDE if name in reader.dtypes]
    columns = list(dict.fromkeys([SAMPLE_ID, STEP, *beside, *selection.metrics]))
    if selection.label_key in reader.dtypes and selection.label_key not in columns:
        columns.insert(columns.index(STEP) + 1, selection.label_key)
    columns = list(dict.fromkeys([*columns, *reader.facts.names]))
    last = [pl.col(name) for name in columns if name != SAMPLE_ID]
    there = False
    for pair in selection.pairs:
        for rows in _places(reader, selection, pair, columns, tally):
            there = True
            yield within_labels(rows.frame, selection).select(*_origin(pair), SAMPLE_ID, *rows.times[:2], *last)
    if not there:
        # No rows are an answer, too: a table with its columns.
        none = pl.DataFrame(schema={name: reader.dtypes[name] for name in columns})
        times = [pl.lit(0, pl.Int32).alias(EPOCH), pl.lit(0, pl.Int16).alias(PASS)]
        yield none.select(*_origin(("", "")), SAMPLE_ID, *times, *last)


def _wide(reader: Reader, selection: Selection, tally: Tally | None) -> Iterator[pl.DataFrame]:
    key = selection.label_key
    labelled = key in reader.dtypes
    places = [Place(*pair, epoch) for pair, epochs in selection.epochs.items() for epoch in epochs]
    every = sorted({(place.epoch, turn) for place in places for turn in reader.turns(place)})
    values = [_at(metric, *time) for time in every for metric in selection.metrics]
    columns = list(dict.fromkeys([SAMPLE_ID, *([key] if labelled else []), *selection.metrics]))
    there = False
    for pair in selection.pairs:
        wide: pl.DataFrame | None = None
        for rows in _places(reader, selection, pair, columns, tally):
            one = within_labels(rows.frame, selection).unique(SAMPLE_ID, keep="last", maintain_order=True)
            label = pl.col(key).alias("_new") if labelled else pl.lit(None).alias("_new")
            named = [
                pl.col(metric).alias(_at(metric, rows.place.epoch, rows.place.turn)) for metric in selection.metrics
            ]
            one = one.select(SAMPLE_ID, label, *named)
            if wide is None:
                wide = one.rename({"_new": LABEL})
            else:
                one = one.with_columns(pl.lit(True).alias("_there"))
                joined = wide.join(one, on=SAMPLE_ID, how="full", coalesce=True, maintain_order="left_right")
                # The label of the last row, missing where it is there.
                last = pl.when("_there").then("_new").otherwise(LABEL)
                wide = joined.with_columns(last.alias(LABEL)).drop("_new", "_there")
        if wide is not None:
            there = True
            absent = [pl.lit(None, pl.Float32).alias(name) for name in values if name not in wide.columns]
            told = wide.with_columns(absent).sort(SAMPLE_ID).select(*_origin(pair), SAMPLE_ID, LABEL, *values)
            facts = reader.facts.of(told[SAMPLE_ID]).drop(SAMPLE_ID)
            yield told.hstack(facts.rename({**fact_columns(facts.columns, told.columns)}))
    if not there:
        kinds: dict[str, pl.DataType] = {MODE: pl.String(), DS_ID: pl.String(), SAMPLE_ID: reader.dtypes[SAMPLE_ID]}
        kinds[LABEL] = reader.dtypes[key] if labelled else pl.Null()
        kinds |= dict.fromkeys(values, pl.Float32())
        called = fact_columns(reader.facts.names, kinds)
        yield pl.DataFrame(schema={**kinds, **{called[name]: dtype for name, dtype in reader.facts.dtypes.items()}})


def _at(metric: str, epoch: int, turn: int | None) -> str:
    return f"{metric}_{epoch}.{turn}" if turn else f"{metric}_{epoch}"


def _places(
    reader: Reader, selection: Selection, pair: Pair, columns: Sequence[str], tally: Tally | None
) -> Iterator[Rows]:
    return reader.place_frames(
        *pair, columns, selection.epochs[pair], duplicates=selection.duplicates, tally=tally, keep_non_finite=True
    )


def _origin(pair: Pair) -> list[pl.Expr]:
    return [pl.lit(value, pl.String).alias(name) for name, value in zip((MODE, DS_ID), pair, strict=True)]


def _write(frames: Iterator[pl.DataFrame], stream: IO[bytes], format: ExportFormat) -> None:
    if format is ExportFormat.CSV:
        for number, frame in enumerate(frames):
            stream.write(_guarded(frame).write_csv(include_header=number == 0).encode())
    elif format is ExportFormat.JSONL:
        for frame in frames:
            stream.write(_json_numbers(frame).write_ndjson().encode())
    elif format is ExportFormat.JSON:
        for number, frame in enumerate(frames):
            text = _json_numbers(frame).write_json().removeprefix("[").removesuffix("]")
            stream.write(("[" if number == 0 else ",\n" if text else "").encode() + text.encode())
        stream.write(b"]\n")
    elif format is ExportFormat.PARQUET:
        _write_parquet(frames, stream)
    else:
        assert_never(format)


def _write_parquet(frames: Iterator[pl.DataFrame], stream: IO[bytes]) -> None:
    import pyarrow.parquet as pq

    tables = (frame.to_arrow(compat_level=pl.CompatLevel.oldest()) for frame in frames)
    first = next(tables)
    with pq.ParquetWriter(stream, first.schema, compression="zstd", write_page_checksum=True) as writer:
        for table in chain([first], tables):
            writer.write_table(table.cast(writer.schema))


def _guarded(frame: pl.DataFrame) -> pl.DataFrame:
    """Text cells and names that start like a formula, and are no number, with an apostrophe in front; lists as JSON."""
    frame = frame.with_columns(_listed(frame[name]) for name, dtype in frame.schema.items() if dtype.is_nested())
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    formula = {name: pl.col(name).str.contains(FORMULA) & ~pl.col(name).str.contains(NUMBER) for name in texts}
    cells = frame.with_columns(
        pl.when(formula[name]).then(pl.lit("'") + pl.col(name)).otherwise(pl.col(name)).alias(name) for name in texts
    )
    return cells.rename({name: guarded(name) for name in cells.columns})


def _listed(column: pl.Series) -> pl.Series:
    """A column of lists as text."""
    cells = [None if value is None else json.dumps(value, default=str) for value in column.to_list()]
    return pl.Series(column.name, cells, pl.String)


def _json_numbers(frame: pl.DataFrame) -> pl.DataFrame:
    # The shortest text of a float32 is another number than the float64 that equals it.
    floats = [name for name, dtype in frame.schema.items() if dtype.is_float()]
    wide = frame.with_columns(pl.col(floats).cast(pl.Float64)) if floats else frame
    return wide.with_columns(pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in floats)


def export_answer(
    reader: Reader,
    selection: Selection,
    target: str | os.PathLike[str] | IO[bytes],
    *,
    format: str = "",
    shape: str = Shape.LONG,
) -> Answer:
    """Export, and say what was written.

    Args:
        target: The file, or an open binary stream.
        format: A format's name; the file's suffix without it.

    Returns:
        One row: path, format, shape, rows (written).

    Raises:
        UsageError: No such format or shape.
        XaiError: The file cannot be written.
    """
    path = Path(target) if isinstance(target, str | os.PathLike) else None
    kind = _one_of(ExportFormat, "export format", format or (path.suffix.lstrip(".") if path else "csv"))
    polars_only(selection, "export")
    tally = Tally()
    n = export(
        reader,
        selection,
        target if path is None else path,  # type: ignore[arg-type]
        format=kind,
        shape=_one_of(Shape, "shape", shape),
        tally=tally,
    )
    written = {"path": spelled(str(path or "-")), "format": kind.value, "shape": shape, "rows": n}
    return Answer(
        command="export",
        run=reader.layout.described,
        selection={**selection.as_dict(), "shape": shape, "format": kind.value},
        data=pl.DataFrame([written]),
        counts=reader.counts(tally),
        warnings=(*selection.warnings, *_left_out(reader, selection), *reader.facts.told, *reader.facts.of_no_sample()),
    )


def _left_out(reader: Reader, selection: Selection) -> Iterator[str]:
    """The kept probabilities and losses of tokens: no list is a cell of these files."""
    told = (*_BESIDE, selection.label_key, *selection.metrics)
    if lists := [name for name, kind in reader.dtypes.items() if kind.is_nested() and name not in told]:
        columns = ", ".join(f'"{name}"' for name in (SAMPLE_ID, EPOCH, *lists))
        have = "has it" if len(lists) == 1 else "has them"
        yield f"left out, as lists: {', '.join(lists)}; xai query 'SELECT {columns} FROM samples' {have}"


T = TypeVar("T", bound=StrEnum)


def _one_of(enum: type[T], kind: str, word: str) -> T:
    try:
        return enum(word.lower())
    except ValueError:
        raise UsageError(f"no {kind} {word!r}", hint="choose from: " + ", ".join(enum)) from None
