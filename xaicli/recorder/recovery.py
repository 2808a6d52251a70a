"""The rows of trainings that were killed: from their segments into parts, at the next open."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from xaicli.errors import DamagedFileError
from xaicli.layout import PartName, RunLayout
from xaicli.locks import is_held
from xaicli.recorder.attempt import lock_path
from xaicli.recorder.catalogue import add_columns
from xaicli.recorder.parts import record_tables, store_rows, store_table
from xaicli.wal.frames import read_header, read_segment, segment_files
from xaicli.wal.records import journal_files, read_journal, scalar_table
from xaicli.wal.snapshot import is_stored

_NAME = re.compile(r"a(\d{6,})-r(\d{4,})-")


def recover(layout: RunLayout, on_lost: Callable[[int], None] | None = None) -> int:
    """Store the rows of every segment and journal whose writer is dead, and remove these.

    One process does it at a time. Of a segment that is partly stored (a kill between its parts, or before its reset)
    what is missing is written.

    Args:
        layout: The run.
        on_lost: Counts rows that are damaged; without it damaged segments stay, where readers name them.

    Returns:
        Sample rows stored.

    Raises:
        OSError: A part cannot be written; its segment stays, and readers read it where it is.
    """
    rows = 0
    with _alone(layout) as is_alone:
        paths = [*segment_files(layout), *journal_files(layout)] if is_alone else []
        writers = {lock_path(layout, *writer) for path in paths if (writer := _writer(path))}
        for lock in sorted(lock for lock in writers if not is_held(lock)):
            left = [path for path in segment_files(layout) if _lock(layout, path) == lock]
            for path in sorted(left, key=_sequence):
                rows += _recover_one(layout, path, on_lost)
            for path, part in journal_files(layout).items():
                if _lock(layout, path) == lock:
                    _recover_journal(layout, path, part)
            lock.unlink(missing_ok=True)
        for lock in layout.wal.glob("a*.lock") if is_alone else ():
            if not is_held(lock):  # of a process that died before its first segment
                lock.unlink(missing_ok=True)
    return rows


@contextlib.contextmanager
def _alone(layout: RunLayout) -> Iterator[bool]:
    """Whether no other process stores what was left; it then does all of it."""
    if not layout.wal.is_dir():
        yield False
        return
    descriptor = os.open(layout.attempts / ".recovery", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _writer(path: Path) -> tuple[int, int] | None:
    """The attempt and the rank in a segment's or a journal's name."""
    match = _NAME.match(path.name)
    return (int(match[1]), int(match[2])) if match else None


def _lock(layout: RunLayout, path: Path) -> Path | None:
    writer = _writer(path)
    return lock_path(layout, *writer) if writer else None


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
    if segment is not None:
        left = segment.without(partial(is_stored, layout, segment.facts, segment.sequence))
        lost = segment.lost if left.frames or not segment.frames else 0
        if lost and on_lost is None:
            return 0
        rows = left.rows
        manifest = add_columns(layout, left.frames)
        if rows:
            store_rows(layout, left.facts, left.sequence, left.content, left.frames, manifest.columns)
        part = PartName(*left.facts.writer, left.sequence, left.sequence)
        for folder, table, _ in record_tables(left.content, left.frames, manifest.id_type):
            store_table(layout, table, layout.root / folder, part)
        if lost and on_lost:
            on_lost(lost)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return rows


def _recover_journal(layout: RunLayout, path: Path, part: PartName) -> None:
    with contextlib.suppress(FileNotFoundError):
        rows, damaged = read_journal(path)
        if rows and not (layout.scalars / part.filename).exists():
            store_table(layout, scalar_table(rows), layout.scalars, part)
        if not damaged:  # else it stays, and is named
            path.unlink()
