"""Reading segments beside the process that fills them, or after it was killed."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from xaicli.layout import PartName, RunLayout
from xaicli.wal.frames import SegmentCopy, SegmentFacts, read_segment, read_sequence, segment_files
from xaicli.wal.rows import to_table

_PASSES = 20


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
    segments = [segment for segment in _copies(layout) if segment.frames]
    columns = layout.read_manifest().columns if segments else ()
    live = []
    for segment in segments:
        facts = segment.facts
        table = to_table(segment.content, segment.frames, facts, columns)
        place = (facts.mode, facts.ds_id, facts.epoch, facts.attempt, facts.rank, segment.sequence)
        live.append(LiveRows(*place, table))
    return live


def _copies(layout: RunLayout) -> list[SegmentCopy]:
    """Copies of all segments at one moment.

    A segment that was empty when it was copied may be filled while the others are, and its rows would be missing among
    later ones: when any has begun anew meanwhile, all are copied again.
    """
    copies: list[SegmentCopy] = []
    for _ in range(_PASSES):
        before = [(path, read_sequence(path)) for path in segment_files(layout)]
        copies = [found for path, _ in before if (found := read_segment(path))]
        if [(path, read_sequence(path)) for path in segment_files(layout)] == before:
            break
    return copies


def is_stored(layout: RunLayout, facts: SegmentFacts, sequence: int) -> bool:
    """Whether a part or a compacted file holds a segment's rows already."""
    folder = layout.folder(facts.mode, facts.ds_id, facts.epoch)
    own = PartName(facts.attempt, facts.rank, sequence, sequence)
    try:
        names = [part for path in folder.iterdir() if (part := PartName.parse(path.name))]
    except OSError:
        return False
    return any(part == own or part.supersedes(own) for part in names)
