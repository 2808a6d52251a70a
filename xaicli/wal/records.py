"""What is logged beside samples - scalars, thumbnails, inputs, facts - in the frames of segments and as tables."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from xaicli.errors import DamagedFileError
from xaicli.layout import PartName, RunLayout
from xaicli.tables.column import whole_ids
from xaicli.vocabulary import SAMPLE_ID
from xaicli.wal import arrays
from xaicli.wal.frames import Frame, read_segment, segment_files
from xaicli.wal.snapshot import is_stored

SCALARS = pa.schema(
    {
        "key": pa.string(),
        "mode": pa.string(),
        "ds_id": pa.string(),
        "epoch": pa.int32(),
        "step": pa.int64(),
        "axis": pa.string(),
        "value": pa.float64(),
        "attempt": pa.int16(),
        "rank": pa.int16(),
    }
)
_JOURNAL = re.compile(r"a(\d{6,})-r(\d{4,})-(\d{8,})\.scalars")


def scalar_table(rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Rows of scalars as a table."""
    columns = zip(*rows, strict=True) if rows else [[] for _ in SCALARS]
    return pa.table([arrays.column(c, f.type) for c, f in zip(columns, SCALARS, strict=True)], schema=SCALARS)


def encode_table(table: pa.Table) -> bytes:
    """The payload of a frame of records other than scalars: an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def encode_scalars(rows: Sequence[Sequence[Any]]) -> bytes:
    """The payload of a frame of scalars."""
    return json.dumps(rows).encode()


def records_table(
    content: memoryview, frames: Sequence[Frame], folder: str, id_type: str | None = None
) -> tuple[pa.Table, int]:
    """The records of a segment that go to one folder, in the order they were logged.

    Args:
        content: The segment's bytes after the header.
        frames: Its frames of that folder.
        folder: One of `RECORD_FOLDERS`.
        id_type: Arrow's name of the run's ids; that of the first record when None.

    Returns:
        The table, and how many records have an id that is none of the run's kind and are not in it.
    """
    payloads = [content[frame.start : frame.end] for frame in frames]
    if folder == "scalars":
        return scalar_table([row for payload in payloads for row in json.loads(bytes(payload))]), 0
    tables = [pa.ipc.open_stream(pa.BufferReader(bytes(payload))).read_all() for payload in payloads]
    kind = id_type or str(tables[0].schema.field(SAMPLE_ID).type)
    fitting = [with_ids(table, kind) for table in tables]
    lost = sum(table.num_rows for table in tables) - sum(table.num_rows for table in fitting)
    return unified(fitting), lost


def with_ids(table: pa.Table, kind: str) -> pa.Table:
    """Records with ids of the run's kind, which may be settled by rows that came later: a number as its text, a text
    that spells a whole number as that, as in a file of facts; those whose id is no such are left out.

    Args:
        table: Records, with `sample_id`.
        kind: "int64" or "string".
    """
    place = table.schema.get_field_index(SAMPLE_ID)
    ids = table.column(place)
    if str(ids.type) == kind:
        return table
    if kind == "string":
        return table.set_column(place, SAMPLE_ID, ids.cast(pa.string()))
    whole = whole_ids(ids)
    return table.set_column(place, SAMPLE_ID, whole).filter(whole.is_valid())


def unified(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables one after the other; a column of several types becomes the widest number, or else text."""
    types: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for field in table.schema:
            types.setdefault(field.name, set()).add(field.type)
    chosen = {name: common(kinds - {pa.null()} or kinds) for name, kinds in types.items()}
    cast = [
        pa.table({name: _cast(table.column(name), chosen[name]) for name in table.column_names}) for table in tables
    ]
    return pa.concat_tables(cast, promote_options="default")


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_list(kind) and not (pa.types.is_list(column.type) or pa.types.is_null(column.type)):
        # A class among sets of classes is a set of one.
        single = [None if value is None else [value] for value in column.to_pylist()]
        return pa.chunked_array([arrays.column(single, kind)])
    if pa.types.is_string(kind) and pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)  # beside texts NaN is a missing one, and no text `nan`
    # Whole numbers beyond 2^53 are rounded beside others, or all of the run's facts would be lost for one.
    return column.cast(kind, safe=not (pa.types.is_floating(kind) and pa.types.is_integer(column.type)))


def common(kinds: set[pa.DataType]) -> pa.DataType:
    """The type of a column of several: numbers, times of one zone, days beside times as times, sets; else text."""
    if len(kinds) == 1:
        return next(iter(kinds))
    if lists := [kind for kind in kinds if pa.types.is_list(kind)]:
        return lists[0]
    if all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds):
        return pa.float64()
    times = [kind for kind in kinds if pa.types.is_timestamp(kind)]
    unit = "ns" if any(kind.unit == "ns" for kind in times) else "us"
    if len(times) == len(kinds) and all(kind.tz for kind in times):
        return pa.timestamp(unit, "UTC")
    if all(pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and not kind.tz) for kind in kinds):
        return pa.timestamp(unit)
    return pa.string()


def live_records(layout: RunLayout, folder: str) -> tuple[list[pa.Table], list[Path]]:
    """The records of a folder that are not in files yet, oldest first, and what of them cannot be read.

    Args:
        layout: The run.
        folder: One of `RECORD_FOLDERS`.
    """
    found: list[tuple[tuple[int, int, int], pa.Table]] = []
    damaged = []
    for path in segment_files(layout):
        try:
            segment = read_segment(path)
        except DamagedFileError:
            damaged.append(path)
            continue
        if segment and not segment.is_whole:
            damaged.append(path)
        frames = [frame for frame in segment.frames if frame.folder == folder] if segment else []
        if segment and frames and not is_stored(layout, segment.facts, segment.sequence, folder):
            order = (*segment.facts.writer, segment.sequence)
            found.append((order, records_table(segment.content, frames, folder)[0]))
    if folder == "scalars":
        for path, part in journal_files(layout).items():
            rows, lines = read_journal(path)
            found.append(((part.attempt, part.rank, part.first), scalar_table(rows)))
            damaged += [path] if lines else []
    return [table for _, table in sorted(found, key=lambda item: item[0])], damaged


# -- format version 1 kept scalars in files of their own, a line a call: its CRC-32, a space, the rows as JSON


def journal_files(layout: RunLayout) -> dict[Path, PartName]:
    """What a training of format version 1 left of its scalars, and the parts they become."""
    found = {}
    for path in sorted(layout.wal.glob("*.scalars")):
        if match := _JOURNAL.fullmatch(path.name):
            attempt, rank, sequence = map(int, match.groups())
            found[path] = PartName(attempt, rank, sequence, sequence)
    return found


def read_journal(path: Path) -> tuple[list[tuple[Any, ...]], int]:
    """The rows of such a file in the order they were logged, and how many of its lines are damaged."""
    rows: list[tuple[Any, ...]] = []
    damaged = 0
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return [], 0
    for line in lines:
        crc, _, text = line.partition(b" ")
        if crc == b"%08x" % zlib.crc32(text):
            rows += map(tuple, json.loads(text))
        else:
            damaged += 1
    return rows, damaged
