"""What a run holds, read with nothing but the format: segments first, then files, superseded ones left out."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from xaicli import parquet, wal
from xaicli.layout import RunLayout, without_superseded


def rows(run_dir: Path) -> pa.Table:
    """Every stored row, checksums verified, sorted by nothing."""
    layout = RunLayout(run_dir)
    live = wal.read_live(layout)
    files = without_superseded(layout.data_files())
    records = parquet.read_records(layout)
    tables = [parquet.read(file.path, record=records.get(file.path.relative_to(run_dir).as_posix())) for file in files]
    for segment in live:
        held = [file.part for file in files if (file.part.attempt, file.part.rank) == (segment.attempt, segment.rank)]
        if not any(part.first <= segment.sequence <= part.last for part in held if part.first == part.last):
            tables.append(segment.table)
    return pa.concat_tables([table.replace_schema_metadata() for table in tables], promote_options="default")


def column(run_dir: Path, name: str) -> list[object]:
    """One column in the order of `sample_id`, then step."""
    return rows(run_dir).sort_by([("sample_id", "ascending"), ("step", "ascending")])[name].to_pylist()
