"""What a run holds, read with nothing but the format."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from xaicli import parquet, wal
from xaicli.layout import RunLayout
from xaicli.wal.live import live_rows


def rows(run_dir: Path) -> pa.Table:
    """Every stored row, checksums verified, sorted by nothing."""
    layout = RunLayout(run_dir)
    snapshot = wal.take_snapshot(layout)
    records = parquet.read_records(layout)
    paths = [file.path for file in snapshot.files]
    tables = [parquet.read(path, record=records.get(path.relative_to(run_dir).as_posix())) for path in paths]
    tables += [live.table for live in live_rows(layout, snapshot.segments)]
    return pa.concat_tables([table.replace_schema_metadata() for table in tables], promote_options="default")


def column(run_dir: Path, name: str) -> list[object]:
    """One column in the order of `sample_id`, then step."""
    return rows(run_dir).sort_by([("sample_id", "ascending"), ("step", "ascending")])[name].to_pylist()
