"""Reading segments beside the process that fills them, or after it was killed."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from xaicli.layout import PartName, RunLayout
from xaicli.wal.frames import SegmentFacts, read_segment, segment_files
from xaicli.wal.rows import to_table


@dataclass(frozen=True)
class LiveRows:
    """Rows of one segment that may not be in a part yet; `table` has a part's columns."""

    mode: str
    ds_id: str
    epoch: int
    attempt: int
    rank: int
    sequence: int
    table: pa.Table


def read_live(layout: RunLayout) -> list[LiveRows]:
    """The rows in segments: of a training that runs, or of one that was killed and not opened since.

    A caller reads this first and lists `data/` afterwards, then leaves out what is in both.
    """
    segments = [found for path in segment_files(layout) if (found := read_segment(path)) and found.frames]
    columns = layout.read_manifest().columns if segments else ()
    live = []
    for segment in segments:
        facts = segment.facts
        table = to_table(segment.content, segment.frames, facts, columns)
        place = (facts.mode, facts.ds_id, facts.epoch, facts.attempt, facts.rank, segment.sequence)
        live.append(LiveRows(*place, table))
    return live


def is_stored(layout: RunLayout, facts: SegmentFacts, sequence: int) -> bool:
    """Whether a part or a compacted file holds a segment's rows already."""
    folder = layout.folder(facts.mode, facts.ds_id, facts.epoch)
    own = PartName(facts.attempt, facts.rank, sequence, sequence)
    try:
        names = [part for path in folder.iterdir() if (part := PartName.parse(path.name))]
    except OSError:
        return False
    return any(part == own or part.supersedes(own) for part in names)
