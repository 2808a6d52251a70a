"""Rows as parts: those of a segment, and any table."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from xaicli import parquet
from xaicli.layout import PartName, RunLayout
from xaicli.manifest import ColumnFacts
from xaicli.recorder.segment import Segment
from xaicli.wal.frames import RECORD_FOLDERS, Folder, Frame, SegmentFacts
from xaicli.wal.records import records_table
from xaicli.wal.rows import by_folder, part_metadata, to_table


def store_rows(
    layout: RunLayout,
    facts: SegmentFacts,
    sequence: int,
    content: memoryview,
    frames: Sequence[Frame],
    columns: Sequence[ColumnFacts],
    done: dict[Folder | str, parquet.FileRecord] | None = None,
    on_lost: Callable[[int, str], None] | None = None,
    on_left_out: Callable[[str, str, int], None] | None = None,
) -> list[parquet.FileRecord]:
    """Write a segment's rows, as far as they fit: a part in each folder; they are durable when this returns.

    Args:
        layout: The run.
        facts: Whose rows they are.
        sequence: The parts' number.
        content: The segment's bytes after the header.
        frames: Its batches, of any places.
        columns: The run's columns.
        done: The parts that an earlier try has written; those written now are added.
        on_lost: Told of rows that no part can hold, and why.
        on_left_out: Told of labels and predictions that none can hold: the column, why, and the rows.

    Raises:
        OSError: One cannot be written; others are in `done`.
        MemoryError: There is no room to make one; likewise.
    """
    part = PartName(*facts.writer, sequence, sequence)
    stored: dict[Folder | str, parquet.FileRecord] = {} if done is None else done
    for folder, group in by_folder(frames).items():
        if folder in stored:
            continue
        lost: list[tuple[int, str]] = []
        left_out: Counter[tuple[str, str]] = Counter()
        table = _as_table(content, group, _Of(folder, facts, columns, lost, left_out))
        named = table.replace_schema_metadata(part_metadata(facts, folder, sequence))
        stored[folder] = store_table(layout, named, layout.folder(*folder), part)
        for rows, reason in lost if on_lost else ():
            on_lost(rows, reason)  # type: ignore[misc]
        for (name, reason), rows in left_out.items() if on_left_out else ():
            on_left_out(name, f"{name} {reason}", rows)  # type: ignore[misc]
    return [record for folder, record in stored.items() if not isinstance(folder, str)]


def segment_part(segment: Segment) -> PartName:
    """The name of the files a segment becomes."""
    assert segment.facts is not None
    return PartName(*segment.facts.writer, segment.sequence, segment.sequence)


def record_tables(
    content: memoryview, frames: Sequence[Frame], id_type: str | None
) -> Iterator[tuple[str, pa.Table, int]]:
    """The records of a segment: each folder, its table, and how many are not in it for an id of another kind."""
    for folder in RECORD_FOLDERS:
        group = [frame for frame in frames if frame.folder == folder]
        if group:
            yield folder, *records_table(content, group, folder, id_type)


class _Of(NamedTuple):
    """Whose rows a table is made of, and what is lost of them."""

    folder: Folder
    facts: SegmentFacts
    columns: Sequence[ColumnFacts]
    lost: list[tuple[int, str]]
    left_out: Counter[tuple[str, str]]


def _as_table(content: memoryview, frames: Sequence[Frame], of: _Of) -> pa.Table:
    """The rows of a folder; where they cannot be brought into one table, those batches that can, one by one."""
    try:
        return to_table(content, frames, of.folder, of.facts, of.columns, of.left_out)
    except MemoryError:
        raise
    except Exception as error:
        if len(frames) == 1:
            of.lost.append((frames[0].rows, f"rows cannot be stored: {error}"))
            return to_table(content, [], of.folder, of.facts, of.columns)
    of.left_out.clear()
    return pa.concat_tables([_as_table(content, [frame], of) for frame in frames])


def store_table(layout: RunLayout, table: pa.Table, folder: Path, part: PartName) -> parquet.FileRecord:
    """Write a part; it is durable when this returns.

    Raises:
        OSError: It cannot be written.
    """
    record = parquet.write(table, folder / part.filename, root=layout.root)
    # A file without a record is good; only its check is weaker.
    with contextlib.suppress(OSError):
        parquet.append_record(layout, part.attempt, part.rank, record)
    return record
