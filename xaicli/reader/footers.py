"""What a file's footer says of its rows, without reading them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaicli import parquet
from xaicli.errors import DamagedFileError
from xaicli.reader.pages import facts_of
from xaicli.vocabulary import ATTEMPT, DS_ID, EPOCH, MODE, RANK, STEP

if TYPE_CHECKING:
    import pyarrow as pa

    from xaicli.parquet import Contents, FileRecord


ORIGIN = ("run_id", MODE, DS_ID, EPOCH, ATTEMPT, RANK, "sequence", "last_sequence")
"""What the footer of a part says of where its rows come from; the last is of compacted files only."""


@dataclass(frozen=True)
class Footer:
    """What is asked of a file most often; `xaicli.parquet` keeps most of it under the footer's key `xai`.

    Attributes:
        rows: How many rows it has.
        steps: Their first and last step; None where that takes reading the column, or there are no rows.
        sorted_ids: A digest of the sample ids where they strictly increase, so that no sample repeats; else None.
        non_finite: {metric: how many values are NaN or infinite}; None where the footer does not say.
        passes: The passes its rows are of, ascending.
        origin: What the footer says of where the rows come from, of the names in `ORIGIN`.
    """

    rows: int
    steps: tuple[int, int] | None = None
    sorted_ids: str | None = None
    non_finite: Mapping[str, int] | None = None
    passes: tuple[int, ...] = (0,)
    origin: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, metadata: Any) -> Footer:
        """The footer of an open file, `pyarrow.parquet.FileMetaData`."""
        rows = int(metadata.num_rows)
        known = cls.parsed((metadata.metadata or {}).get(b"xai"), rows)
        return known if known and known.steps else replace(known or cls(rows), steps=_steps_by_statistics(metadata))

    @classmethod
    def parsed(cls, facts: bytes | None, rows: int) -> Footer | None:
        """What the footer's key `xai` holds, JSON; None where that is nothing that can be read."""
        try:
            known = json.loads(facts or b"")
            steps, digest, non_finite = known.get("steps"), known.get("sorted_ids"), known.get("non_finite")
            return cls(
                rows=rows,
                steps=(int(steps[0]), int(steps[1])) if steps else None,
                sorted_ids=None if digest is None else str(digest),
                non_finite=None if non_finite is None else {str(name): int(n) for name, n in non_finite.items()},
                passes=tuple(sorted(int(n) for n in known.get("passes") or (0,))),
                origin={name: known[name] for name in ORIGIN if name in known},
            )
        except (ValueError, TypeError, AttributeError, LookupError):
            return None


def read_footer(path: Path, record: FileRecord | None, contents: Contents | None = None) -> Footer:
    """The footer of a file; its steps are known if it has rows.

    Raises:
        DamagedFileError: The footer is not what was written, or the steps had to be read and are not.
        FileNotFoundError: The file has vanished.
    """
    if record:
        content = contents.of(path) if contents else None
        said = Footer.parsed(facts_of(parquet.checked_footer(path, record, content)), record.rows)
        if said and said.steps:
            return said
    with parquet.opened(path, record, contents) as file:
        footer = Footer.of(file.metadata)
        if footer.steps is None and footer.rows:
            if STEP not in file.schema_arrow.names:
                raise DamagedFileError(f"{path} has no column {STEP}", hint="see: xai doctor")
            return replace(footer, steps=step_range(file.read(columns=[STEP])))
        return footer


def step_range(table: pa.Table) -> tuple[int, int] | None:
    """The first and last step of rows in memory; None without rows."""
    import pyarrow.compute as pc

    found = pc.min_max(table.column(STEP)).as_py()
    return None if found["min"] is None else (int(found["min"]), int(found["max"]))


def _steps_by_statistics(metadata: Any) -> tuple[int, int] | None:
    names = metadata.schema.names
    if STEP not in names or not metadata.num_row_groups:
        return None
    index = names.index(STEP)
    kept = [metadata.row_group(group).column(index).statistics for group in range(metadata.num_row_groups)]
    if not all(statistics is not None and statistics.has_min_max for statistics in kept):
        return None
    return min(statistics.min for statistics in kept), max(statistics.max for statistics in kept)
