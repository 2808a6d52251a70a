"""Rows as a part: those of a segment, and any table."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from xaicli import parquet
from xaicli.layout import PartName, RunLayout
from xaicli.manifest import ColumnFacts
from xaicli.wal.frames import Frame, SegmentFacts
from xaicli.wal.rows import part_metadata, to_table

UNFIT = "label or prediction has a value beyond 32 bits"
"""Why a part may have fewer rows than its segment."""


def store_rows(
    layout: RunLayout,
    facts: SegmentFacts,
    sequence: int,
    content: memoryview,
    frames: Sequence[Frame],
    columns: Sequence[ColumnFacts],
) -> parquet.FileRecord:
    """Write the part of a segment's rows, as far as they fit; it is durable when this returns.

    Args:
        layout: The run.
        facts: Whose rows they are.
        sequence: The part's number.
        content: The segment's bytes after the header.
        frames: Its batches.
        columns: The run's columns.

    Raises:
        OSError: It cannot be written.
    """
    table = to_table(content, frames, facts, columns)
    table = table.replace_schema_metadata(part_metadata(facts, sequence))
    return store_table(layout, table, layout.folder(*facts.place), PartName(*facts.writer, sequence, sequence))


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
