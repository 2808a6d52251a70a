"""The segments of a rank: memory that outlives the process, filled batch by batch.

A rank has three, in turn: one is filled, one is written, one is spare. Frames are copied in whole, the used size stored
last. They are files really allocated on the disk and mapped into memory, or plain memory where that fails.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from time import time
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from xaicli import files
from xaicli.files import give_name, make_folder, temporary_beside
from xaicli.layout import RunLayout
from xaicli.recorder.columns import Column, Texts
from xaicli.recorder.ledger import Ledger
from xaicli.wal.frames import (
    FRAME,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    NULL_LENGTH,
    PUT_AT,
    SALT,
    USED_AT,
    Frame,
    Kind,
    Place,
    SegmentFacts,
    is_varied,
    scan_frames,
    storage,
)

SEGMENT_BYTES = 5_500_000
_MOST_PLANS = 65_535
_ROWS = int(Kind.ROWS)
_FRAME_BYTES = FRAME.size
_pack_frame = FRAME.pack_into


class Plan:
    """The columns of a batch: ((name, dtype), ...), dtypes as `xaicli.wal.frames.storage` reads them.

    Plans are told apart by identity: one is made once and used for every batch like it.
    """

    def __init__(self, columns: Sequence[tuple[str, str]]) -> None:
        self.columns = tuple(columns)
        self.has_texts = any(is_varied(dtype) for _, dtype in columns)


class Segment:
    """Memory for rows of any place: a file mapped into memory, or plain memory.

    Attributes:
        sequence: The number of the parts these rows become.
        rows: Sample rows held.
        size: Bytes of the memory.
        wanted: Bytes of the last frame that found no room.
    """

    def __init__(self, memory: Any, *, path: Path | None = None) -> None:
        """
        Args:
            memory: A writable buffer.
            path: The file it maps, if it is one: its rows survive the process.
        """
        self.path = path
        self._memory = memory
        self._view = memoryview(memory).cast("B")
        self.size = len(self._view)
        self.wanted = 0
        self._used = self._view[USED_AT : USED_AT + 8].cast("Q")
        self._put_at = self._view[PUT_AT : PUT_AT + 8].cast("d")
        self._room = len(self._view) - HEADER_BYTES
        self.facts: SegmentFacts | None = None
        self.sequence = 0
        self.rows = 0
        self._at = 0
        self._salt = 0
        self._plans: dict[Plan, int] = {}
        self._places: dict[Place, int] = {}

    def begin(self, facts: SegmentFacts, sequence: int) -> None:
        """Make the segment empty and say whose rows follow."""
        self._used[0] = 0
        self.facts, self.sequence, self.rows, self._at = facts, sequence, 0, 0
        self._plans, self._places = {}, {}
        self._salt = sequence * SALT
        text = facts.to_json()
        self._view[HEADER.size : HEADER.size + len(text)] = text
        HEADER.pack_into(self._view, 0, MAGIC, sequence, 0, len(text), crc32(text))

    def append(self, place: Place, plan: Plan, rows: int, step: int, values: Sequence[Column]) -> bool:
        """Add a batch; False where there is no room for it.

        Args:
            place: What its rows belong to.
            plan: The batch's columns.
            rows: Its rows.
            step: Its step.
            values: (rows,) each, in the order and of the types the plan was made with.

        Raises:
            ValueError: A text has no UTF-8 form.
        """
        number = self._plans.get(plan)
        if number is None:
            number = self._add_plan(plan)
        where = self._places.get(place)
        if where is None:
            where = self._add_place(place)
        if number is None or where is None:
            return False
        if plan.has_texts:
            payload = _with_texts(plan, values)
        else:
            try:
                payload = b"".join(values)  # type: ignore[arg-type]
            except (TypeError, ValueError, BufferError):  # a value is not contiguous, or no array of numpy's
                payload = b"".join(_contiguous(plan, values))  # type: ignore[arg-type]
        return self._put(payload, rows, number, _ROWS, where, step)

    def append_records(self, folder: int, records: int, payload: bytes) -> bool:
        """Add records beside samples; False where there is no room for them.

        Args:
            folder: Where they go, by its number in `RECORD_FOLDERS`.
            records: How many there are.
            payload: As `xaicli.wal.records` encodes them.
        """
        if not self._put(payload, records, folder, int(Kind.RECORDS), 0, 0):
            return False
        self.rows -= records
        return True

    def _put(self, payload: bytes, rows: int, number: int, kind: int, place: int, step: int) -> bool:
        length = _FRAME_BYTES + len(payload)
        start = HEADER_BYTES + self._at
        if self._at + length > self._room:
            self.wanted = length
            return False
        # checksum_seed, without the call
        crc = crc32(payload, (step + rows + number + (place << 8) + (kind << 30) + self._salt) & 0xFFFFFFFF)
        _pack_frame(self._view, start, length, crc, rows, number, kind, place, step)
        self._view[start + _FRAME_BYTES : start + length] = payload
        self.rows += rows
        self._at += length
        self._put_at[0] = time()
        self._used[0] = self._at
        return True

    def _add_plan(self, plan: Plan) -> int | None:
        number = len(self._plans)
        if number > _MOST_PLANS or not self._put(json.dumps(plan.columns).encode(), 0, number, int(Kind.PLAN), 0, 0):
            return None
        self._plans[plan] = number
        return number

    def _add_place(self, place: Place) -> int | None:
        number = len(self._places)
        if not self._put(json.dumps(place).encode(), 0, 0, int(Kind.PLACE), number, 0):
            return None
        self._places[place] = number
        return number

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held."""
        return not self._at

    def content(self) -> memoryview:
        """The frames' bytes."""
        return self._view[HEADER_BYTES : HEADER_BYTES + self._at]

    def frames(self) -> list[Frame]:
        """The batches held, in the order they were added."""
        return [frame for frame in scan_frames(self.content()) if frame.rows]

    def reset(self) -> None:
        """Forget the rows: they are in a part."""
        self._used[0] = 0
        self.rows = self._at = 0


def _contiguous(plan: Plan, values: Sequence[Column]) -> list[NDArray[Any]]:
    """The values of a plan without texts as arrays that can be copied as bytes."""
    return [np.ascontiguousarray(v, storage(dtype)[0]) for v, (_, dtype) in zip(values, plan.columns, strict=True)]


def _with_texts(plan: Plan, values: Sequence[Column]) -> bytes:
    """The payload of a batch with texts or lists: lengths among the columns, the bytes after them."""
    pieces, texts = [], []
    for value, (_, dtype) in zip(values, plan.columns, strict=True):
        if is_varied(dtype):
            lengths, text = encode_texts(value) if dtype == "string" else _encode_lists(value)  # type: ignore[arg-type]
            pieces.append(np.array(lengths, np.uint32))
            texts.append(text)
        else:
            pieces.append(np.ascontiguousarray(value))
    return b"".join([*pieces, *texts])  # type: ignore[list-item]


def _encode_lists(values: Sequence[bytes | None]) -> tuple[list[int], bytes]:
    """The lengths of lists in bytes, and their bytes one after the other."""
    lengths = [NULL_LENGTH if value is None else len(value) for value in values]
    return lengths, b"".join(value for value in values if value)


def encode_texts(values: Texts) -> tuple[list[int], bytes]:
    """The lengths of texts in bytes, and their bytes one after the other.

    Raises:
        ValueError: A text has no UTF-8 form (a lone surrogate).
    """
    try:
        joined = "".join(values)  # type: ignore[arg-type]
        if joined.isascii():
            return list(map(len, values)), joined.encode("ascii")  # type: ignore[arg-type]
    except TypeError:
        pass  # one is missing
    pieces = [None if value is None else value.encode() for value in values]
    lengths = [NULL_LENGTH if piece is None else len(piece) for piece in pieces]
    return lengths, b"".join(piece for piece in pieces if piece)


SEGMENTS = 3
_PAGE = mmap.PAGESIZE
_REMOTE = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "fuse",
    "ceph",
    "gpfs",
    "beegfs",
    "9p",
    "afs",
    "glusterfs",
    "orangefs",
    "virtiofs",
)
"""File systems on which a mapped file is slow, or not what other hosts see."""


def segment_path(layout: RunLayout, attempt: int, rank: int, number: int) -> Path:
    """Where a rank's segment lies."""
    return layout.wal / f"a{attempt:06d}-r{rank:04d}-{number}.seg"


def file_segment(path: Path, size: int = 0) -> Segment:
    """A segment whose rows survive the process.

    Every page is allocated before the first row: a file that is merely long would end the training with SIGBUS when the
    disk fills.

    Raises:
        OSError: There is no room, or the file system cannot do this.
    """
    size = size or SEGMENT_BYTES
    make_folder(path.parent)
    if kind := remote_file_system(path.parent):
        raise OSError(errno.ENOTSUP, f"a {kind} file system cannot hold write-ahead segments", str(path))
    total = -(-(HEADER_BYTES + size) // _PAGE) * _PAGE
    # It gets its name once it has its size: one without is known for damage.
    temporary = temporary_beside(path)
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        os.posix_fallocate(descriptor, 0, total)
        memory = mmap.mmap(descriptor, total)
        memory[::_PAGE] = bytes(total // _PAGE)
        give_name(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(descriptor)
    return Segment(memory, path=path)


def memory_segment(size: int = SEGMENT_BYTES) -> Segment:
    """A segment that is lost with the process."""
    return Segment(bytearray(HEADER_BYTES + size))


def remote_file_system(folder: Path) -> str:
    """The type of the file system a folder is on if it is one of `_REMOTE`, else ""."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    real = folder.resolve()
    best, found = 0, ""
    for line in lines:
        fields = line.split()
        mount = Path(fields[4].replace("\\040", " "))
        if (real == mount or mount in real.parents) and len(mount.parts) >= best:
            best, found = len(mount.parts), fields[fields.index("-") + 1]
    return found if found.startswith(_REMOTE) else ""


LONGEST_WAIT = 0.7
"""Seconds a step waits for a segment when the disk is behind; not at all when the last write failed."""
BATCHES = 8
"""A segment is made to hold this many batches."""
MOST_BYTES = 64 << 20
"""The largest segment, unless one row takes more."""


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
        self._changed = threading.Condition()

    def _say_memory(self, error: OSError) -> None:
        self._ledger.warn(
            "memory",
            f"xai: no write-ahead segments in {self._layout.wal} ({error}): "
            "rows wait in memory, and a killed process loses those of the last minute",
        )

    def _path(self, number: int) -> Path:
        return segment_path(self._layout, *self._origin, number)

    def _path_of(self, segment: Segment) -> Path | None:
        """Where a segment's file is now, if it has one: the run directory may have been moved."""
        return None if segment.path is None else self._layout.wal / segment.path.name

    def outlives(self, segment: Segment) -> bool:
        """Whether a segment's rows outlive the process."""
        path = self._path_of(segment)
        return path is not None and path.exists()

    def make_one(self) -> None:
        """Allocate the next segment; in memory where the disk cannot hold it, said once."""
        segment = None
        if not self._in_memory:
            try:
                if not self._made:
                    files.make_folder(self._layout.wal, durable=False)  # the first step waits for this
                segment = file_segment(self._path(self._made))
                self._least = segment.size
            except OSError as error:
                self._in_memory = True
                self._say_memory(error)
        with self._changed:
            self._free.append(segment or memory_segment())
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
        path = self._path_of(segment)
        if path is not None:
            try:
                path.unlink(missing_ok=True)
                return file_segment(path, self._size)
            except OSError as error:
                self._say_memory(error)
        return memory_segment(self._size)

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
        """Remove the files of segments that hold nothing; the others wait for the next open.

        The lock stays: a process whose lock is gone before its counters say that it has closed was killed.
        """
        with contextlib.suppress(OSError):
            # The newest last: it tells readers how far its writer came.
            for segment in sorted(self._free, key=lambda segment: segment.sequence):
                if (path := self._path_of(segment)) is not None:
                    path.unlink(missing_ok=True)
            self._free.clear()


class AllocateJob:
    """One more segment, allocated by the writer so that no step waits for it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def store(self) -> None:
        self._pool.make_one()

    def give_up(self, reason: str, *, for_good: bool = False) -> None:
        """A segment that was not needed."""
        del reason, for_good
