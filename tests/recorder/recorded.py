"""What a run holds, read with nothing but the format."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from xaicli import parquet, wal
from xaicli.layout import RunLayout
from xaicli.wal.snapshot import live_rows


def rows(run_dir: Path) -> pa.Table:
    """Every stored row, checksums verified, sorted by nothing."""
    layout = RunLayout(run_dir)
    snapshot = wal.take_snapshot(layout)
    records = parquet.read_records(layout)
    tables = [
        _placed(parquet.read(file.path, record=records.get(file.path.relative_to(run_dir).as_posix())), file.epoch)
        for file in snapshot.files
    ]
    tables += [live.table for live in live_rows(layout, snapshot.segments)]
    return pa.concat_tables([table.replace_schema_metadata() for table in tables], promote_options="default")


def _placed(table: pa.Table, epoch: int) -> pa.Table:
    """The rows of a part with their epoch, which its folder and its footer say."""
    table = table.set_column(1, "mode", table["mode"].cast(pa.string()))
    return table.add_column(3, "epoch", pa.array([epoch] * len(table), pa.int32()))


def column(run_dir: Path, name: str) -> list[object]:
    """One column in the order of `sample_id`, then step."""
    return rows(run_dir).sort_by([("sample_id", "ascending"), ("step", "ascending")])[name].to_pylist()
