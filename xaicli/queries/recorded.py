"""The scalars a run recorded with `run.log`: verified, fenced, one value a moment."""

from __future__ import annotations

import polars as pl

from xaicli import parquet
from xaicli.errors import DamagedFileError
from xaicli.layout import DataFile, PartName, without_superseded
from xaicli.reader import Reader
from xaicli.reader.pieces import relative
from xaicli.vocabulary import ATTEMPT, DS_ID, EPOCH, MODE, RANK, STEP

KEY, AXIS, VALUE = "key", "axis", "value"

SCHEMA = {
    KEY: pl.String(),
    MODE: pl.String(),
    DS_ID: pl.String(),
    EPOCH: pl.Int32(),
    STEP: pl.Int64(),
    AXIS: pl.String(),
    VALUE: pl.Float64(),
    ATTEMPT: pl.Int16(),
    RANK: pl.Int16(),
}

_LINE = (KEY, MODE, DS_ID, AXIS)
_TRAINING_AXES = ("step", "iteration")
_TRIES = 5


def recorded_scalars(reader: Reader) -> pl.DataFrame:
    """Every scalar that counts: of several at one moment the last attempt's, and in it the lowest rank's, the last.

    A value counts unless a later attempt has taken over from an earlier time: its own first value of the same key, or
    the step it resumed from, where the time axis is the training step. A counter or an epoch is not comparable with
    that step; the recorder's counter goes on from the loaded state, so its values are taken over likewise.

    Returns:
        key, mode, ds_id, epoch, step (the time), axis (of what: step, iteration, epoch, counter), value, attempt, rank;
        by key, mode, ds_id, axis and step. Damaged files are left out and noted.

    Raises:
        DamagedFileError: A file is damaged and the reader is strict.
    """
    frame = _rows(reader)
    attempts = frame[ATTEMPT].unique().sort(descending=True).to_list()
    resumed = {a.attempt: a.resumed_from_step for a in reader.attempts}
    later: pl.DataFrame | None = None
    kept = []
    for attempt in attempts:
        rows = frame.filter(pl.col(ATTEMPT) == attempt)
        firsts = rows.group_by(_LINE).agg(pl.col(STEP).min().alias("first"))
        steps = [step for number, step in resumed.items() if number > attempt and step is not None]
        if steps:
            rows = rows.filter(~pl.col(AXIS).is_in(_TRAINING_AXES) | (pl.col(STEP) < min(steps)))
        if later is not None:
            taken = rows.join(later, on=_LINE, how="left", maintain_order="left")
            rows = taken.filter(pl.col("first").is_null() | (pl.col(STEP) < pl.col("first"))).drop("first")
            firsts = pl.concat([later, firsts]).group_by(_LINE).agg(pl.col("first").min())
        later = firsts
        kept.append(rows)
    one = pl.concat(kept) if kept else frame
    ordered = one.sort(RANK, descending=True, maintain_order=True).unique(
        [*_LINE, STEP], keep="last", maintain_order=True
    )
    return ordered.sort([*_LINE, STEP])


def _rows(reader: Reader) -> pl.DataFrame:
    """All rows of all files in the order they were logged in."""
    for attempt in range(_TRIES):
        frames = []
        try:
            for file in _files(reader):
                path = relative(reader.layout, file)
                try:
                    table = parquet.read(file.path, list(SCHEMA), None, reader.records.get(path))
                except DamagedFileError as error:
                    reader.note(error, path)
                    continue
                frame = pl.DataFrame(pl.from_arrow(table))
                frames.append(frame.with_columns(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()))
        except FileNotFoundError:
            # A compaction has replaced a file since the folder was listed.
            if attempt == _TRIES - 1:
                raise
            reader.refresh()
            continue
        break
    return pl.concat(frames) if frames else pl.DataFrame(schema=SCHEMA)


def _files(reader: Reader) -> list[DataFile]:
    folder = reader.layout.scalars
    named = {path: part for path in sorted(folder.glob("*.parquet")) if (part := PartName.parse(path.name))}
    return without_superseded(DataFile("", "", 0, part, path) for path, part in named.items())
