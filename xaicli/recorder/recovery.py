"""The rows of trainings that were killed: from their segments into parts, at the next open."""

from __future__ import annotations

import contextlib
from pathlib import Path

from xaicli.layout import RunLayout
from xaicli.recorder.allocation import hold, lock_path, release
from xaicli.recorder.parts import store_rows
from xaicli.wal.frames import read_segment, segment_files
from xaicli.wal.live import is_stored


def recover(layout: RunLayout) -> int:
    """Store the rows of every segment whose writer is dead, and remove the segments.

    Several processes may do this at once: each takes the segments whose lock it gets. A segment whose part is there
    already (a kill between the part's rename and the segment's reset) is only removed.

    Returns:
        Rows stored.

    Raises:
        OSError: A part cannot be written; its segment stays, and readers read it where it is.
    """
    rows = 0
    for lock in sorted({lock_path(path) for path in segment_files(layout)}):
        if not hold(lock):
            continue
        try:
            # Listed again: the process that had the lock before may have been faster.
            for path in segment_files(layout):
                if lock_path(path) == lock:
                    rows += _recover_one(layout, path)
        finally:
            release(lock)
    return rows


def _recover_one(layout: RunLayout, path: Path) -> int:
    rows = 0
    segment = read_segment(path)
    if segment is not None and not is_stored(layout, segment.facts, segment.sequence):
        rows = sum(frame.rows for frame in segment.frames)
        if rows:
            columns = layout.read_manifest().columns
            store_rows(layout, segment.facts, segment.sequence, segment.content, segment.frames, columns)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return rows
