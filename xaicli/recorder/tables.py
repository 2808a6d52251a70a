"""Metrics tables beside the samples: the caller's columns, with their schemas."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa

from xaicli import parquet
from xaicli.files import write_whole
from xaicli.layout import PartName, RunLayout

_SCHEMA_KEY = b"xai_schema"


def append_table(layout: RunLayout, writer: tuple[int, int], name: str, table: pa.Table) -> Path:
    """Add rows to a table of the run; they are durable when this returns.

    Args:
        layout: The run.
        writer: The attempt and the rank that write.
        name: The table's name; any text.
        table: The rows; a field's metadata may hold its schema as JSON under `xai_schema`.

    Returns:
        The file written.

    Raises:
        OSError: It cannot be written.
    """
    folder = layout.table_folder(name)
    schemas = {
        field.name: json.loads(field.metadata[_SCHEMA_KEY])
        for field in table.schema
        if field.metadata and _SCHEMA_KEY in field.metadata
    }
    described = folder / "schema.json"
    if described.is_file():
        schemas = json.loads(described.read_text(encoding="utf-8")) | schemas
    write_whole(described, json.dumps(schemas, indent=2).encode(), durable=True)
    parts = (PartName.parse(path.name) for path in folder.iterdir())
    taken = [part.last for part in parts if part and (part.attempt, part.rank) == writer]
    sequence = max(taken, default=-1) + 1
    path = folder / PartName(*writer, sequence, sequence).filename
    parquet.append_record(layout, *writer, parquet.write(table, path, root=layout.root))
    return path
