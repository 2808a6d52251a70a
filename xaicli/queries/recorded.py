"""The scalars a run recorded with `run.log`: verified, fenced, one value a moment."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import polars as pl

from xaicli import parquet
from xaicli.errors import DamagedFileError
from xaicli.layout import DataFile, PartName, without_superseded
from xaicli.reader import Reader
from xaicli.reader.pieces import relative
from xaicli.vocabulary import ATTEMPT, DS_ID, EPOCH, MODE, RANK, STEP
from xaicli.wal.journal import journal_files, read_journal

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

_CURVE = (KEY, MODE, DS_ID, AXIS)
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
    resumed = {attempt.attempt: attempt.resumed_from_step for attempt in reader.attempts}
    curves = _rows(reader).partition_by(_CURVE, as_dict=True, maintain_order=True)
    counting = [_one_a_moment(_not_taken_over(curves[key], resumed)) for key in sorted(curves)]
    return pl.concat(counting) if counting else pl.DataFrame(schema=SCHEMA)


def _not_taken_over(curve: pl.DataFrame, resumed: Mapping[int, int | None]) -> pl.DataFrame:
    """The rows of one curve that no later attempt has taken over from.

    Args:
        curve: The rows, in the order they were logged in.
        resumed: {attempt: the training step it resumed from}.
    """
    is_training_time = curve[AXIS][0] in _TRAINING_AXES
    fence: int | None = None
    kept = []
    for attempt in curve[ATTEMPT].unique().sort(descending=True).to_list():
        rows = curve.filter(pl.col(ATTEMPT) == attempt)
        steps = [step for number, step in resumed.items() if number > attempt and step is not None]
        limits = [fence, *(steps if is_training_time else ())]
        known = [limit for limit in limits if limit is not None]
        kept.append(rows.filter(pl.col(STEP) < min(known)) if known else rows)
        first = int(rows[STEP].min())  # type: ignore[arg-type]
        fence = first if fence is None else min(fence, first)
    return pl.concat(reversed(kept))


def _one_a_moment(curve: pl.DataFrame) -> pl.DataFrame:
    """The last value of the lowest rank at each step, by step."""
    steps = curve[STEP]
    if curve.height < 2 or bool((steps.diff().drop_nulls() > 0).all()):
        return curve
    ordered = curve.sort(RANK, descending=True, maintain_order=True)
    return ordered.unique(STEP, keep="last", maintain_order=True).sort(STEP)


def _rows(reader: Reader) -> pl.DataFrame:
    """All rows of all files, and of journals that are not files yet, in the order they were logged in."""
    for attempt in range(_TRIES):
        frames = []
        live = _journalled(reader)  # before the files: what becomes one meanwhile is seen twice, and counts once
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
        frames.append(live)
        break
    return pl.concat(frames) if frames else pl.DataFrame(schema=SCHEMA)


def _journalled(reader: Reader) -> pl.DataFrame:
    rows = []
    for path in journal_files(reader.layout):
        with contextlib.suppress(FileNotFoundError):
            found, damaged = read_journal(path)
            rows += found
            if damaged:
                name = path.relative_to(reader.layout.root).as_posix()
                reader.note(DamagedFileError(f"{name} has {damaged} damaged lines", hint="see: xai doctor"), name)
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _files(reader: Reader) -> list[DataFile]:
    folder = reader.layout.scalars
    named = {path: part for path in sorted(folder.glob("*.parquet")) if (part := PartName.parse(path.name))}
    return without_superseded(DataFile("", "", 0, part, path) for path, part in named.items())
