"""One schema in all files of a run, also in those written before a column came or was widened.

Tools that read a folder by its first file's columns would leave later ones out, narrow them, or refuse.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from xaicli import parquet
from xaicli.errors import DamagedFileError
from xaicli.files import for_arrow, make_folder
from xaicli.layout import DataFile, RunLayout, without_superseded
from xaicli.locks import alone_at, is_held, unread
from xaicli.manifest import ColumnFacts
from xaicli.parquet import Contents, FileRecord
from xaicli.recorder.attempt import lock_path, stats_file
from xaicli.recorder.ledger import read_ending
from xaicli.vocabulary import EPOCH, PASS
from xaicli.wal import take_snapshot
from xaicli.wal.rows import arrow_type

READERS_SECONDS = 0.5
"""How long the end of a recording waits for those who read the run; most are done sooner."""


def conforms(schema: pa.Schema, columns: Sequence[ColumnFacts]) -> bool:
    """Whether a file has every column of the run, and numbers as wide as the run's."""
    for column in columns:
        if column.name == EPOCH:
            continue  # the folder says it
        at = schema.get_field_index(column.name)
        if at < 0 or _is_narrow(schema.field(at).type, column):
            return False
    return True


def _is_narrow(kind: pa.DataType, column: ColumnFacts) -> bool:
    return kind == pa.float32() and column.dtype == "double"


def conformed(table: pa.Table, columns: Sequence[ColumnFacts]) -> pa.Table:
    """The rows with the run's columns in their order: null where there was none, as wide as the run's.

    Args:
        table: Rows of a data file; its metadata stay.
        columns: The run's columns.
    """
    arrays: dict[str, pa.Array | pa.ChunkedArray] = {}
    for column in columns:
        if column.name in table.column_names:
            held = table.column(column.name)
            arrays[column.name] = held.cast(pa.float64()) if _is_narrow(held.type, column) else held
        elif column.name == PASS:  # files of format version 1 know none: theirs is 0
            arrays[PASS] = pa.repeat(pa.scalar(0, pa.int16()), table.num_rows)
        elif column.name != EPOCH:
            arrays[column.name] = pa.nulls(table.num_rows, arrow_type(column.dtype))
    arrays |= {name: table.column(name) for name in table.column_names if name not in arrays}
    return pa.table(arrays).replace_schema_metadata(table.schema.metadata)


def make_uniform(layout: RunLayout, columns: Sequence[ColumnFacts], *, seconds: float) -> int:
    """Write files anew that lack columns of the run: a part as a compacted file of one, and such a file as a part.

    Whenever both are there, the compacted one counts for readers, and the other is removed last or added first. No file
    is replaced that somebody may have listed and not opened yet: where a program reads the run, or the file system has
    no locks to tell of one, all stay as they are, and `xai compact` does it later.

    Args:
        layout: The run.
        columns: Its columns.
        seconds: How long it may take.

    Returns:
        Files left as they are for want of time, since another process is at it, or for a reader.

    Raises:
        OSError: One cannot be written.
    """
    deadline = time.monotonic() + seconds
    records = parquet.read_records(layout)
    late = [file for file in _recorded(layout, records) if not file_conforms(file, columns)]
    if not late:
        return 0
    with alone(layout) as is_alone:
        wait = READERS_SECONDS
        for number, file in enumerate(late):
            if not is_alone or time.monotonic() >= deadline:
                return len(late) - number
            if file.part.first == file.part.last:  # those of several parts only `xai compact` writes again
                with unread(layout.data, wait) as is_unread:  # each alone: readers that begin wait for the lock
                    if not is_unread:
                        return len(late) - number
                    with contextlib.suppress(DamagedFileError, FileNotFoundError):
                        _rewrite(layout, file, records, columns)
                wait = 0.0
    return sum(file.part.first != file.part.last for file in late)


def other_tools(
    layout: RunLayout, columns: Sequence[ColumnFacts], foreign: Collection[Path], contents: Contents
) -> list[str]:
    """What tools that read the folder of a run as it lies would get wrong now, each with the way out.

    A training that was killed leaves such things, and a compaction that readers have kept from removing files.

    Args:
        layout: The run.
        columns: Its columns.
        foreign: Files in its folders that are not the run's; `damaged` names them.
        contents: What keeps small files, so that none is opened twice.
    """
    # Folders that may not be listed are named by the reader, too.
    there = [file for file in layout.data_files(closed=[]) if file.path not in foreign]
    files = without_superseded(there)
    said = []
    if late := sum(not file_conforms(file, columns, contents) for file in files):
        said.append(
            f"files from before a column came, or became one of double precision: {late:,} of {len(files):,}. Other "
            "tools may leave the column out or refuse the folder; xai compact gives every file all columns"
        )
    if replaced := len(there) - len(files):
        said.append(
            f"files that a compaction has replaced, kept for a program that was reading them: {replaced:,}. Other "
            "tools count their rows twice; xai compact removes them once that program has ended"
        )
    for whose, rows in _left_in_segments(layout).items():
        said.append(
            f"rows of {whose} that lie in wal/ still: {rows:,}. Only xai reads them there; xai compact, or "
            "opening the run again, puts them into files"
        )
    return said


def _left_in_segments(layout: RunLayout) -> Counter[str]:
    """Rows that no process will put into files any more, by how that came."""
    writers = {segment.facts.writer for segment in take_snapshot(layout, closed=[]).segments}
    ended = {writer for writer in writers if not is_held(lock_path(layout, *writer))}
    left = Counter[str]()
    # One that ended in order meanwhile has put its rows into files: what is left is what is there still.
    for segment in take_snapshot(layout, closed=[]).segments if ended else ():
        if segment.rows and (writer := segment.facts.writer) in ended:
            closed = read_ending(stats_file(layout, *writer)).is_closed
            left["a run that was closed before they were in files" if closed else "a killed training"] += segment.rows
    return left


@contextlib.contextmanager
def alone(layout: RunLayout) -> Iterator[bool]:
    """Whether no other process puts files in the place of others."""
    make_folder(layout.cache)
    with alone_at(layout.cache / "compact.lock") as is_alone:
        yield is_alone


def _recorded(layout: RunLayout, records: Collection[str]) -> list[DataFile]:
    files = without_superseded(layout.data_files())
    return [file for file in files if file.path.relative_to(layout.root).as_posix() in records]


def file_conforms(file: DataFile, columns: Sequence[ColumnFacts], contents: Contents | None = None) -> bool:
    """`conforms` of a file; also of one that is damaged or gone, which those who read it name."""
    try:
        content = contents.of(file.path) if contents else None
        held = for_arrow(file.path) if content is None else pa.BufferReader(content)
        return conforms(pq.read_schema(held), columns)
    except (OSError, pa.ArrowException):
        return True


def _rewrite(
    layout: RunLayout, file: DataFile, records: Mapping[str, FileRecord], columns: Sequence[ColumnFacts]
) -> None:
    record = records[file.path.relative_to(layout.root).as_posix()]
    parquet.verify(file.path, record)
    table = parquet.read(file.path, record=record)
    facts = json.loads((table.schema.metadata or {}).get(b"xai", b"{}"))
    part = replace(file.part, compacted=not file.part.compacted)
    footer = {"xai": json.dumps({**facts, "last_sequence": part.last})}
    table = conformed(table, columns).replace_schema_metadata(footer)
    made = parquet.write(table, file.path.with_name(part.filename), root=layout.root)
    parquet.append_record(layout, part.attempt, part.rank, made)
    file.path.unlink(missing_ok=True)  # at once: a tool that reads the folder takes every file for rows of its own
