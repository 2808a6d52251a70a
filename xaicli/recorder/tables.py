"""Metrics tables beside the samples: the caller's columns, with their schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from xaicli import parquet
from xaicli.layout import PartName

if TYPE_CHECKING:
    from xaicli.recorder.records import Records

_SCHEMA_KEY = b"xai_schema"


def append_table(run: Records, name: str, table: pa.Table) -> Path:
    """Add rows to a table of the run; they are durable when this returns.

    Args:
        run: The open run.
        name: The table's name; any text.
        table: The rows; a field's metadata may hold its schema as JSON under `xai_schema`.

    Returns:
        The file written.

    Raises:
        OSError: It cannot be written.
    """
    layout = run.layout
    folder = layout.table_folder(name)
    schemas = {
        field.name: json.loads(field.metadata[_SCHEMA_KEY])
        for field in table.schema
        if field.metadata and _SCHEMA_KEY in field.metadata
    }
    described = folder / "schema.json"
    if described.is_file():
        schemas = json.loads(described.read_text(encoding="utf-8")) | schemas
    parquet.write_bytes(json.dumps(schemas, indent=2).encode(), described)
    taken = [part.last for path in folder.iterdir() if (part := PartName.parse(path.name)) and _own(part, run)]
    sequence = max(taken, default=-1) + 1
    path = folder / PartName(run.attempt, run.rank, sequence, sequence).filename
    parquet.append_record(layout, run.attempt, run.rank, parquet.write(table, path, root=layout.root))
    return path


def _own(part: PartName, run: Records) -> bool:
    return (part.attempt, part.rank) == (run.attempt, run.rank)
