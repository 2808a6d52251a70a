"""Write-ahead segments: what is logged but not yet in a file.

A segment belongs to one rank of one attempt. After a header of `HEADER_BYTES` it holds frames, each with its own
CRC-32. A frame of rows is one batch of any place: its columns one after the other in whatever types the caller had
them, texts as lengths followed by their bytes. Bringing them into the run's types is left to the part. How many bytes
of frames count is stored last, in one aligned 8-byte store: what a killed process had not finished does not exist.

    header   magic 8s, sequence u64, used u64, length of the JSON u32, its crc32 u32,
             JSON {run_id, attempt, rank, boot_id}; in its last 8 bytes when the last frame was put, f64, seconds since
             1970, which stays while the segment is empty and begins anew
    frame    length u32, crc32 u32 of the payload (see `checksum_seed`), rows u32, plan u16, kind u16, place u32,
             step i64, payload (what a segment held before it began anew fails it: its sequence was another)
    payload  of a plan: JSON [[column, dtype], ...]; of a place: JSON [mode, ds_id, epoch, pass]; of rows: the columns
             of the plan, then the texts' bytes, column by column; of records: those of the folder
             `RECORD_FOLDERS[plan]`, JSON for scalars, an Arrow IPC stream for the others

Segments of format version 1 held rows of one (mode, ds_id, epoch), named in the header; they are read as well.
"""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xaicli.errors import DamagedFileError
from xaicli.layout import RunLayout

MAGIC = b"XAISEG3\n"
MAGIC_1 = b"XAISEG2\n"
"""The magic of format version 1."""
HEADER_BYTES = 4096
HEADER = struct.Struct("<8sQQII")
FRAME = struct.Struct("<IIIHHIq")
FRAME_1 = struct.Struct("<IIIHHq")
USED_AT = 16
PUT_AT = HEADER_BYTES - 8
SALT = 0x9E3779B1
"""Spreads sequence numbers over 32 bits."""

NULL_INT = -(2**31)
WITH_GAPS = "intc"
"""What whole numbers of 32 bits are called of which some are `NULL_INT` for a missing one: of others it was given."""
"""Stands for a missing label or prediction among whole ones."""
NULL_LENGTH = 0xFFFFFFFF
"""Stands for a missing text among the lengths."""

SCORES = {
    "raw logits": (True, False),
    "raw probs": (False, False),
    "kept logits": (True, True),
    "kept probs": (False, True),
}
"""Columns of (rows, classes) from which the others are derived when the rows become a part: {column: (whether they are
logits, whether the probabilities are kept)}."""

RECORD_FOLDERS = ("scalars", "media", "inputs", "facts")
"""The folders of what is logged beside samples, by the number a frame has of them."""

_READ_TRIES = 5

Writer = tuple[int, int]
"""attempt, rank: whose sequence numbers these are."""


class Kind(IntEnum):
    """What a frame holds."""

    PLAN = 0
    ROWS = 1
    PLACE = 2
    RECORDS = 3


Folder = tuple[str, str, int]
"""mode, ds_id, epoch: the rows that lie in one folder."""


class Place(NamedTuple):
    """What rows of a frame belong to. `turn` is the place's pass."""

    mode: str
    ds_id: str
    epoch: int
    turn: int = 0

    @property
    def folder(self) -> Folder:
        """The folder of its rows."""
        return self.mode, self.ds_id, self.epoch


@dataclass(frozen=True)
class SegmentFacts:
    """Whose rows a segment holds; `ignore_label` is the label that stands for none."""

    run_id: str
    attempt: int
    rank: int
    boot_id: str = ""
    ignore_label: int | None = None

    @property
    def writer(self) -> Writer:
        """Whose rows they are: (attempt, rank)."""
        return self.attempt, self.rank

    @classmethod
    def from_json(cls, text: bytes) -> SegmentFacts:
        """What `to_json` wrote; unknown keys are ignored."""
        facts = json.loads(text)
        known = {key: facts[key] for key in cls.__dataclass_fields__ if key in facts}
        return cls(**known)

    def to_json(self) -> bytes:
        """As the head of a segment holds it."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True)
class Header:
    """The head of a segment: whose rows it holds, which parts they become, and how many bytes of frames count.

    After the rows have become parts `used` is 0, while the rest stays until the segment begins anew. `place` is that of
    all rows in a segment of format version 1, else None; `put` when the last frame was put, 0 where that is not known.
    """

    facts: SegmentFacts
    sequence: int
    used: int
    place: Place | None = None
    put: float = 0.0


@dataclass(frozen=True)
class Frame:
    """One batch of rows, or of records, inside a segment.

    Attributes:
        start: Where its payload begins.
        end: Where that ends.
        rows: How many there are.
        step: Their step; 0 of records.
        columns: The plan of rows.
        place: What the rows belong to; None for records.
        folder: Where records go, one of `RECORD_FOLDERS`; "" for rows.
    """

    start: int
    end: int
    rows: int
    step: int
    columns: tuple[tuple[str, str], ...] = ()
    place: Place | None = None
    folder: str = ""


@dataclass(frozen=True)
class Lost:
    """What damage took of a segment.

    Attributes:
        rows: Sample rows.
        records: Scalars, pictures, inputs and facts, by their folder.
        is_all: Whether it is certain that there was no more, of whatever kind.
    """

    rows: int = 0
    records: Mapping[str, int] = field(default_factory=dict)
    is_all: bool = True

    @property
    def more(self) -> str:
        """What is said behind the numbers."""
        return "" if self.is_all else ", and how many more is not known"

    def __bool__(self) -> bool:
        return bool(self.rows or self.records or not self.is_all)

    def __str__(self) -> str:
        counted = (self.rows, "row"), (sum(self.records.values()), "other record")
        known = " and ".join(f"{n:,} {noun}{'s'[: n != 1]}" for n, noun in counted if n)
        if not known:
            return "something of it cannot be read, and how much is not known"
        return f"{known} of it cannot be read{self.more}"


UNKNOWN = Lost(is_all=False)
"""What damage took where nothing tells how much there was."""


@dataclass(frozen=True)
class SegmentCopy:
    """A segment as it was at one moment.

    Attributes:
        path: Its file.
        facts: Whose rows it holds.
        sequence: Which parts they become.
        content: What counts of it, after the header, as far as it is there.
        used: How many bytes count.
        frames: Its batches of rows and records, as far as they are intact; never empty ones.
        intact: How many bytes of the content are intact.
        old_place: The place of all rows in a segment of format version 1.
    """

    path: Path
    facts: SegmentFacts
    sequence: int
    content: memoryview
    used: int
    frames: tuple[Frame, ...]
    intact: int
    old_place: Place | None = None

    @property
    def rows(self) -> int:
        """Sample rows that are whole."""
        return sum(frame.rows for frame in self.frames if frame.place)

    def without(self, is_stored: Callable[[Folder | str], bool]) -> SegmentCopy:
        """The segment without what is in files already.

        Args:
            is_stored: Whether a file holds the segment's rows of a folder, (mode, ds_id, epoch) or one of
                `RECORD_FOLDERS`.
        """
        folders = {frame.place.folder if frame.place else frame.folder for frame in self.frames}
        stored = {folder for folder in folders if is_stored(folder)}
        if not stored:
            return self
        left = [f for f in self.frames if (f.place.folder if f.place else f.folder) not in stored]
        return replace(self, frames=tuple(left))

    @property
    def lost(self) -> Lost:
        """What was there and is damaged, as far as the heads of frames still tell it; nothing where all is whole."""
        if self.is_whole:
            return Lost()
        rows, records = 0, Counter[str]()
        at, is_clear = self.intact, False
        head = FRAME if self.old_place is None else FRAME_1
        while at + head.size <= len(self.content):
            length, _, n, plan, kind, *_ = head.unpack_from(self.content, at)
            if length < head.size or at + length > len(self.content):
                break
            n = min(n, length - head.size)
            if kind == Kind.ROWS:
                rows += n
            elif kind == Kind.RECORDS and plan < len(RECORD_FOLDERS):
                records[RECORD_FOLDERS[plan]] += n
            elif kind not in (Kind.PLAN, Kind.PLACE):
                break
            at += length
            is_clear = at == self.used
        return Lost(rows, records, is_clear)

    @property
    def is_whole(self) -> bool:
        """Whether every byte that counts is intact."""
        return self.intact == self.used


_MISSING_BITS = 0x7FD5_A1A5
MISSING = np.float32(np.array([_MISSING_BITS], np.uint32).view(np.float32)[0])
"""What stands for a missing value among real numbers: a NaN that no computation makes. In double precision it is the
same NaN, widened; in half precision what is left of it."""
_MISSING_WIDE = int(np.array(MISSING).astype(np.float64).view(np.uint64))
_MISSING_HALF = int(np.array(MISSING).astype(np.float16).view(np.uint16))


def is_missing(values: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Which of real numbers are `MISSING`; None where none is, or none can be."""
    if values.dtype == np.float32:
        found = np.ascontiguousarray(values).view(np.uint32) == _MISSING_BITS
    elif values.dtype == np.float64:
        found = np.ascontiguousarray(values).view(np.uint64) == _MISSING_WIDE
    elif values.dtype == np.float16:
        found = np.ascontiguousarray(values).view(np.uint16) == _MISSING_HALF
    else:
        return None
    return found if found.any() else None


def checksum_seed(sequence: int, rows: int, plan: int, kind: int, step: int, place: int = 0) -> int:
    """Where a frame's checksum starts from, so that it covers the header's fields too."""
    return (step + rows + plan + (place << 8) + (kind << 30) + sequence * SALT) & 0xFFFFFFFF


def item_size(dtype: str) -> int:
    """Bytes of one value in the fixed part of a frame; a text's length takes 4."""
    base, width = storage(dtype)
    return base.itemsize * (width or 1)


def storage(dtype: str) -> tuple[np.dtype[Any], int]:
    """The numpy type of a column and how many values a row has: "float32[10]" has ten; 0 is one, without an axis."""
    if dtype.endswith("]"):
        base, _, width = dtype[:-1].partition("[")
        return np.dtype(base), int(width)
    return np.dtype(np.uint32 if is_varied(dtype) else dtype), 0


def is_varied(dtype: str) -> bool:
    """Whether values of a column differ in length, texts and lists: in a frame their bytes follow the columns."""
    return dtype == "string" or dtype.startswith("list<")


def scan_frames(content: memoryview, sequence: int | None = None, *, old_place: Place | None = None) -> Iterator[Frame]:
    """The frames of a segment's used bytes, ending at the first that is not whole; those of plans and places are empty.

    Args:
        content: The bytes after the header, as far as they count.
        sequence: Verify each frame's checksum; not when None.
        old_place: The place of all rows in a segment of format version 1, whose frames name none.
    """
    plans: dict[int, tuple[tuple[str, str], ...]] = {}
    places: dict[int, Place] = {} if old_place is None else {0: old_place}
    head = FRAME if old_place is None else FRAME_1
    at = 0
    while at + head.size <= len(content):
        if old_place is None:
            length, crc, rows, plan, kind, place, step = FRAME.unpack_from(content, at)
        else:
            (length, crc, rows, plan, kind, step), place = FRAME_1.unpack_from(content, at), 0
        start, end = at + head.size, at + length
        if end < start or end > len(content):
            return
        if sequence is not None:
            seed = checksum_seed(sequence, rows, plan, kind, step, place)
            if zlib.crc32(content[start:end], seed) != crc:
                return
        try:
            yield _frame(content, start, end, (rows, plan, kind, place, step), plans, places)
        except (ValueError, TypeError, LookupError):
            return
        at = end


def _frame(
    content: memoryview,
    start: int,
    end: int,
    head: tuple[int, int, int, int, int],
    plans: dict[int, tuple[tuple[str, str], ...]],
    places: dict[int, Place],
) -> Frame:
    """One frame; what it says of plans and places is kept."""
    rows, plan, kind, place, step = head
    if kind == Kind.ROWS:
        return Frame(start, end, rows, step, plans[plan], places[place])
    if kind == Kind.RECORDS:
        return Frame(start, end, rows, 0, folder=RECORD_FOLDERS[plan])
    facts = json.loads(bytes(content[start:end]))
    if kind == Kind.PLAN:
        plans[plan] = tuple((name, dtype) for name, dtype in facts)
    elif kind == Kind.PLACE:
        places[place] = Place(*facts)
    else:
        raise ValueError(f"frame of an unknown kind: {kind}")
    return Frame(start, end, 0, 0)


def parse_header(content: bytes | memoryview) -> Header | None:
    """What a segment's first bytes say; None where they are those of no segment, or just being written."""
    if len(content) < HEADER_BYTES:
        return None
    magic, sequence, used, length, crc = HEADER.unpack_from(content)
    text = bytes(content[HEADER.size : HEADER.size + length])
    if magic not in (MAGIC, MAGIC_1) or zlib.crc32(text) != crc:
        return None
    try:
        facts = json.loads(text)
        old = Place(facts["mode"], facts["ds_id"], facts["epoch"]) if magic == MAGIC_1 else None
        return Header(SegmentFacts.from_json(text), sequence, used, old, struct.unpack_from("<d", content, PUT_AT)[0])
    except (ValueError, KeyError, TypeError):
        return None


def read_header(path: Path) -> Header | None:
    """The head of a segment; None where it is gone, or new."""
    try:
        with path.open("rb") as file:
            return parse_header(file.read(HEADER_BYTES))
    except OSError:
        return None


def segment_files(layout: RunLayout) -> list[Path]:
    """The segments of all ranks and attempts."""
    return sorted(layout.wal.glob("*.seg"))


_READ_BYTES = 1 << 20


def _is_blank(head: bytes, rest: BinaryIO) -> bool:
    """Whether nothing was ever put there: of a segment that was used and lost its first page, frames are left."""
    piece = head
    while piece:
        if piece != bytes(len(piece)):
            return False
        piece = rest.read(_READ_BYTES)
    return bool(head)


def read_segment(path: Path) -> SegmentCopy | None:
    """A copy of a segment; None where it is empty, or was handed over while it was read.

    Every frame's checksum is verified: after power loss the size may be newer than the frames.

    Raises:
        DamagedFileError: Its head is not what any segment begins with.
    """
    for _ in range(_READ_TRIES):
        try:
            with path.open("rb", buffering=0) as file:
                head = file.read(HEADER_BYTES)
                before = parse_header(head)
                if before is None and _is_blank(head, file):
                    return None
                content = file.read(before.used) if before else b""
                file.seek(0)
                after = parse_header(file.read(HEADER_BYTES))
        except OSError:
            return None
        if before and not before.used:
            return None
        if before is None:
            time.sleep(0.001)  # it may just be beginning anew
        elif after and after.used and (after.facts, after.sequence) == (before.facts, before.sequence):
            return _copy(path, before, memoryview(content))
    if before is None:
        raise DamagedFileError(f"{path} is damaged: its head is that of no segment", hint="see: xai doctor")
    return None


def _copy(path: Path, header: Header, content: memoryview) -> SegmentCopy:
    every = list(scan_frames(content, header.sequence, old_place=header.place))
    frames = tuple(frame for frame in every if frame.rows)
    intact = every[-1].end if every else 0
    return SegmentCopy(path, header.facts, header.sequence, content, header.used, frames, intact, header.place)
