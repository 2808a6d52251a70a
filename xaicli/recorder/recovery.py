"""The rows of trainings that were killed: from their segments into parts, at the next open."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from xaicli.errors import DamagedFileError
from xaicli.layout import PartName, RunLayout
from xaicli.recorder.allocation import hold, lock_path, release
from xaicli.recorder.parts import store_rows, store_table
from xaicli.recorder.scalars import to_table
from xaicli.wal.frames import read_header, read_segment, segment_files
from xaicli.wal.journal import journal_files, read_journal
from xaicli.wal.snapshot import is_stored


def recover(layout: RunLayout, on_lost: Callable[[int], None] | None = None) -> int:
    """Store the rows of every segment and journal whose writer is dead, and remove these.

    Several processes may do this at once: each takes those whose lock it gets. One whose part is there already (a kill
    between the part's rename and the segment's reset) is only removed.

    Args:
        layout: The run.
        on_lost: Counts rows that are damaged; without it damaged segments stay, where readers name them.

    Returns:
        Sample rows stored.

    Raises:
        OSError: A part cannot be written; its segment stays, and readers read it where it is.
    """
    rows = 0
    for lock in sorted({lock_path(path) for path in [*segment_files(layout), *journal_files(layout)]}):
        if not hold(lock):
            continue
        try:
            # Listed again: the process that had the lock before may have been faster.
            left = [path for path in segment_files(layout) if lock_path(path) == lock]
            for path in sorted(left, key=_sequence):
                rows += _recover_one(layout, path, on_lost)
            for path, part in journal_files(layout).items():
                if lock_path(path) == lock:
                    _recover_journal(layout, path, part)
        finally:
            release(lock)
    return rows


def _sequence(path: Path) -> int:
    """What to go by: the newest segment is removed last, since it tells readers how far its writer came."""
    header = read_header(path)
    return -1 if header is None else header.sequence


def _recover_one(layout: RunLayout, path: Path, on_lost: Callable[[int], None] | None) -> int:
    rows = 0
    try:
        segment = read_segment(path)
    except DamagedFileError:
        return 0  # it stays, and is named
    if segment is not None and not is_stored(layout, segment.facts, segment.sequence):
        if segment.lost and on_lost is None:
            return 0
        rows = segment.rows
        if rows:
            columns = layout.read_manifest().columns
            store_rows(layout, segment.facts, segment.sequence, segment.content, segment.frames, columns)
        if segment.lost and on_lost:
            on_lost(segment.lost)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return rows


def _recover_journal(layout: RunLayout, path: Path, part: PartName) -> None:
    with contextlib.suppress(FileNotFoundError):
        rows, damaged = read_journal(path)
        if rows and not (layout.scalars / part.filename).exists():
            store_table(layout, to_table(rows), layout.scalars, part)
        if not damaged:  # else it stays, and is named
            path.unlink()
