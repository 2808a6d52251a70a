"""What a file's footer says of its rows, without reading them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaicli import parquet
from xaicli.vocabulary import STEP

if TYPE_CHECKING:
    import pyarrow as pa

    from xaicli.parquet import FileRecord


def column_range(metadata: Any, column: str, row_group: int) -> tuple[Any, Any] | None:
    """The smallest and largest value of a column in a row group; None where no statistics were kept.

    Args:
        metadata: The footer, `pyarrow.parquet.FileMetaData`.
    """
    index = column_index(metadata, column)
    if index is None:
        return None
    statistics = metadata.row_group(row_group).column(index).statistics
    if statistics is None or not statistics.has_min_max:
        return None
    return statistics.min, statistics.max


def column_index(metadata: Any, column: str) -> int | None:
    """The position of a plain column among a file's leaves; None where there is none."""
    names = metadata.schema.names
    return names.index(column) if column in names else None


def sorted_ids(metadata: Any) -> str | None:
    """The digest of a file's ids if they are strictly increasing, as a compacted file's footer holds it."""
    digest = _facts(metadata).get("sorted_ids")
    return digest if isinstance(digest, str) else None


def non_finite(metadata: Any) -> dict[str, int] | None:
    """How many non-finite values each metric of a file has; None where the footer does not say."""
    counts = _facts(metadata).get("non_finite")
    return {str(name): int(n) for name, n in counts.items()} if isinstance(counts, dict) else None


def _facts(metadata: Any) -> dict[str, Any]:
    try:
        facts = json.loads((metadata.metadata or {}).get(b"xai", b"{}"))
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def steps(metadata: Any) -> tuple[int, int] | None:
    """The first and last step of a file; None where the footer does not say."""
    found = _facts(metadata).get("steps")
    if isinstance(found, list) and len(found) == 2 and all(isinstance(step, int) for step in found):
        return found[0], found[1]
    return None


def ids_are_unique(path: Path, record: FileRecord | None) -> bool:
    """Whether a file's footer says that no sample repeats in it."""
    with parquet.opened(path, record) as file:
        return sorted_ids(file.metadata) is not None


def row_count(path: Path, record: FileRecord | None) -> int:
    """How many rows a file has."""
    with parquet.opened(path, record) as file:
        return int(file.metadata.num_rows)


def step_range(path: Path, record: FileRecord | None) -> tuple[int, int] | None:
    """The first and last step of a file: from its statistics, else by reading the column; None without rows.

    Raises:
        DamagedFileError: The footer or the column is not what was written.
        FileNotFoundError: The file has vanished.
    """
    with parquet.opened(path, record) as file:
        metadata = file.metadata
        if metadata.num_rows == 0:
            return None
        if known := steps(metadata):
            return known
        ranges = [column_range(metadata, STEP, group) for group in range(metadata.num_row_groups)]
        if all(ranges):
            return min(found[0] for found in ranges if found), max(found[1] for found in ranges if found)
        return step_range_of(file.read(columns=[STEP]))


def step_range_of(table: pa.Table) -> tuple[int, int] | None:
    """The first and last step of rows in memory; None without rows."""
    import pyarrow.compute as pc

    found = pc.min_max(table.column(STEP)).as_py()
    return None if found["min"] is None else (int(found["min"]), int(found["max"]))
