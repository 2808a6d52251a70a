"""The rows of segments, of a training that runs or of one that was killed, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xaicli.layout import RunLayout
from xaicli.wal.frames import SegmentCopy

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class LiveRows:
    """Rows of one segment and folder that are not in a part yet; `table` has a part's columns, `pass` among them."""

    mode: str
    ds_id: str
    epoch: int
    attempt: int
    rank: int
    sequence: int
    table: pa.Table


def live_rows(layout: RunLayout, segments: Sequence[SegmentCopy]) -> list[LiveRows]:
    """The rows of segments, as `take_snapshot` gives them, by folder."""
    if not segments:
        return []
    # A finished run has no segments, and need not load what decodes them.
    from xaicli.wal.columns import with_those_of
    from xaicli.wal.rows import by_folder, to_table

    every = [frame for segment in segments for frame in segment.frames]
    columns = with_those_of(layout.read_manifest().columns, every)
    return [
        LiveRows(
            *folder,
            *segment.facts.writer,
            segment.sequence,
            to_table(segment.content, frames, folder, segment.facts, columns),
        )
        for segment in segments
        for folder, frames in by_folder(segment.frames).items()
    ]
