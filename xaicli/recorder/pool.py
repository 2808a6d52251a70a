"""The three segments of a rank, in turn: one is filled, one is written, one is spare."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from pathlib import Path

from xaicli import files
from xaicli.layout import RunLayout
from xaicli.locks import release
from xaicli.recorder import allocation, attempt
from xaicli.recorder.ledger import Ledger
from xaicli.recorder.segment import Segment
from xaicli.wal.frames import HEADER_BYTES

LONGEST_WAIT = 0.7
"""Seconds a step waits for a segment when the disk is behind; not at all when the last write failed."""
BATCHES = 8
"""A segment is made to hold this many batches."""
MOST_BYTES = 64 << 20
"""Of a segment, unless one row takes more."""


class Pool:
    """Allocates the segments when the first row comes, and hands them out."""

    def __init__(self, layout: RunLayout, origin: tuple[int, int], ledger: Ledger) -> None:
        """
        Args:
            layout: The run.
            origin: The attempt and the rank.
            ledger: What is told of stalls.
        """
        self._layout = layout
        self._origin = origin
        self._ledger = ledger
        self._free: deque[Segment] = deque()
        self._made = 0
        self._size = 0
        self._least = 0
        self._behind = False
        self._in_memory = False
        self._lock_file = attempt.lock_path(layout, *origin)
        self._changed = threading.Condition()

    def _say_memory(self, error: OSError) -> None:
        self._ledger.warn(
            "memory",
            f"xai: no write-ahead segments in {self._layout.wal} ({error}): "
            "rows wait in memory, and a killed process loses those of the last minute",
        )

    def _path(self, number: int) -> Path:
        return allocation.segment_path(self._layout, *self._origin, number)

    @property
    def is_begun(self) -> bool:
        """Whether there are segments."""
        return self._made > 0

    def make_one(self) -> None:
        """Allocate the next segment; in memory where the disk cannot hold it, said once."""
        segment = None
        if not self._in_memory:
            try:
                if not self._made:
                    files.make_folder(self._layout.wal, durable=False)  # the first step waits for this
                segment = allocation.file_segment(self._path(self._made))
                self._least = segment.size
            except OSError as error:
                self._in_memory = True
                self._say_memory(error)
        with self._changed:
            self._free.append(segment or allocation.memory_segment())
            self._made += 1
            self._changed.notify_all()

    def take(self, *, is_failing: bool = False) -> Segment | None:
        """A free segment; None when the disk takes nothing and all are full.

        Args:
            is_failing: The last write failed: do not wait.
        """
        segment = self._next(is_failing)
        if segment is not None and segment.size < self._size:
            return self._enlarged(segment)
        return segment

    def grow(self, frame: int) -> bool:
        """Make segments large enough for several frames of this many bytes; False where they are."""
        size = max(min(BATCHES * frame, MOST_BYTES), frame + HEADER_BYTES)
        if size <= max(self._size, self._least):
            return False
        self._size = size
        return True

    def _enlarged(self, segment: Segment) -> Segment:
        """A larger segment in the place of an empty one."""
        path = segment.path
        if path is not None:
            try:
                path.unlink(missing_ok=True)
                return allocation.file_segment(path, self._size)
            except OSError as error:
                self._say_memory(error)
        return allocation.memory_segment(self._size)

    def _next(self, is_failing: bool) -> Segment | None:
        with self._changed:
            if not self._free:
                self._ledger.stalls += 1
                # While the disk takes nothing, only the first step waits for it.
                if not self._behind and not is_failing:
                    self._changed.wait_for(lambda: bool(self._free), LONGEST_WAIT)
                self._behind = not self._free
            else:
                self._behind = False
            return self._free.popleft() if self._free else None

    def give(self, segment: Segment) -> None:
        """Take back a segment whose rows are stored, or lost."""
        segment.reset()
        files.reached("reset")
        with self._changed:
            self._free.append(segment)
            self._changed.notify_all()

    def close(self) -> None:
        """Remove the files of segments that hold nothing; the others wait for the next open."""
        with contextlib.suppress(OSError):
            # The newest last: it tells readers how far its writer came.
            for segment in sorted(self._free, key=lambda segment: segment.sequence):
                if segment.path is not None:
                    segment.path.unlink(missing_ok=True)
            self._free.clear()
            release(self._lock_file)
            self._layout.wal.rmdir()


class AllocateJob:
    """One more segment, allocated by the writer so that no step waits for it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def store(self) -> None:
        self._pool.make_one()

    def give_up(self, reason: str, *, for_good: bool = False) -> None:
        """A segment that was not needed."""
        del reason, for_good
