"""Write-ahead segments: the rows that are logged but not yet in a part.

A segment belongs to one (mode, ds_id, epoch) of one rank. After a header of `HEADER_BYTES` it holds frames: one a
batch, with its own CRC-32, its columns one after the other in whatever types the caller had them, texts as lengths
followed by their bytes. Bringing them into the run's types is left to the part. How many bytes of frames count is
stored last, in one aligned 8-byte store: what a killed process had not finished does not exist.

    header   magic 8s, sequence u64, used u64, length of the JSON u32, its crc32 u32, JSON {run_id, mode, ds_id, ...}
    frame    length u32, crc32 u32 of the payload (see `checksum_seed`), rows u32, plan u16, kind u16, step i64, payload
             (what a segment held before it began anew fails it: its sequence was another)
    payload  of a plan frame: JSON [[column, dtype], ...]; of a rows frame: the columns of that plan, then the texts'
             bytes, column by column
"""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from xaicli.errors import DamagedFileError
from xaicli.layout import RunLayout

MAGIC = b"XAISEG2\n"
HEADER_BYTES = 4096
HEADER = struct.Struct("<8sQQII")
FRAME = struct.Struct("<IIIHHq")
USED_AT = 16
SALT = 0x9E3779B1
"""Spreads sequence numbers over 32 bits."""

NULL_INT = -(2**31)
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

_READ_TRIES = 5

Writer = tuple[int, int]
"""attempt, rank: whose sequence numbers these are."""


class Kind(IntEnum):
    """What a frame holds."""

    PLAN = 0
    ROWS = 1


@dataclass(frozen=True)
class SegmentFacts:
    """Whose rows a segment holds."""

    run_id: str
    attempt: int
    rank: int
    mode: str
    ds_id: str
    epoch: int
    boot_id: str = ""

    @property
    def place(self) -> tuple[str, str, int]:
        """The rows' (mode, ds_id, epoch)."""
        return self.mode, self.ds_id, self.epoch

    @property
    def writer(self) -> Writer:
        """Whose rows they are: (attempt, rank)."""
        return self.attempt, self.rank

    @classmethod
    def from_json(cls, text: bytes) -> SegmentFacts:
        """What `to_json` wrote; unknown keys are ignored."""
        facts = json.loads(text)
        return cls(**{key: facts[key] for key in cls.__dataclass_fields__})

    def to_json(self) -> bytes:
        """As the head of a segment holds it."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True)
class Header:
    """The head of a segment: whose rows it holds, which part they become, and how many bytes of frames count.

    After the rows have become a part `used` is 0, while the rest stays until the segment begins anew.
    """

    facts: SegmentFacts
    sequence: int
    used: int


@dataclass(frozen=True)
class Frame:
    """One batch inside a segment: `start`..`end` are its payload's place, `columns` its plan."""

    start: int
    end: int
    rows: int
    step: int
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class SegmentCopy:
    """A segment as it was at one moment.

    Attributes:
        path: Its file.
        facts: Whose rows it holds.
        sequence: Which part they become.
        content: What counts of it, after the header.
        frames: Its batches, as far as they are whole; never empty ones.
        whole: How many bytes of the content are.
    """

    path: Path
    facts: SegmentFacts
    sequence: int
    content: memoryview
    frames: tuple[Frame, ...]
    whole: int

    @property
    def rows(self) -> int:
        """Rows that are whole."""
        return sum(frame.rows for frame in self.frames)

    @property
    def lost(self) -> int:
        """Rows that were there and are damaged, as far as that can still be told; 0 where all is whole."""
        if self.whole == len(self.content):
            return 0
        behind = (frame for frame in scan_frames(self.content) if frame.start >= self.whole)
        return max(1, sum(min(frame.rows, frame.end - frame.start) for frame in behind))


def checksum_seed(sequence: int, rows: int, plan: int, kind: int, step: int) -> int:
    """Where a frame's checksum starts from, so that it covers the header's fields too."""
    return (step + rows + plan + (kind << 30) + sequence * SALT) & 0xFFFFFFFF


def item_size(dtype: str) -> int:
    """Bytes of one value in the fixed part of a frame; a text's length takes 4."""
    base, width = storage(dtype)
    return base.itemsize * (width or 1)


def storage(dtype: str) -> tuple[np.dtype[Any], int]:
    """The numpy type of a column and how many values a row has: "float32[10]" has ten; 0 is one, without an axis."""
    if dtype.endswith("]"):
        base, _, width = dtype[:-1].partition("[")
        return np.dtype(base), int(width)
    return np.dtype(np.uint32 if dtype == "string" else dtype), 0


def scan_frames(content: memoryview, sequence: int | None = None) -> Iterator[Frame]:
    """The frames of a segment's used bytes, ending at the first that is not whole; those of plans have no rows.

    Args:
        content: The bytes after the header, as far as they count.
        sequence: Verify each frame's checksum; not when None.
    """
    plans: dict[int, tuple[tuple[str, str], ...]] = {}
    at = 0
    while at + FRAME.size <= len(content):
        length, crc, rows, plan, kind, step = FRAME.unpack_from(content, at)
        start, end = at + FRAME.size, at + length
        if end < start or end > len(content):
            return
        if sequence is not None:
            seed = checksum_seed(sequence, rows, plan, kind, step)
            if zlib.crc32(content[start:end], seed) != crc:
                return
        if kind == Kind.PLAN:
            try:
                plans[plan] = tuple((name, dtype) for name, dtype in json.loads(bytes(content[start:end])))
            except (ValueError, TypeError):
                return
        if plan in plans:
            yield Frame(start, end, rows, step, plans[plan])
        at = end


def parse_header(content: bytes | memoryview) -> Header | None:
    """What a segment's first bytes say; None where they are those of no segment, or just being written."""
    if len(content) < HEADER_BYTES:
        return None
    magic, sequence, used, length, crc = HEADER.unpack_from(content)
    text = bytes(content[HEADER.size : HEADER.size + length])
    if magic != MAGIC or zlib.crc32(text) != crc:
        return None
    try:
        return Header(SegmentFacts.from_json(text), sequence, used)
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
                content = file.read(before.used) if before else b""
                file.seek(0)
                after = parse_header(file.read(HEADER_BYTES))
        except OSError:
            return None
        if not any(head) or (before and not before.used):
            return None
        if before is None:
            time.sleep(0.001)  # it may just be beginning anew
        elif after and after.used and (after.facts, after.sequence) == (before.facts, before.sequence):
            return _copy(path, before, memoryview(content))
    if before is None:
        raise DamagedFileError(f"{path} is damaged: its head is that of no segment", hint="see: xai doctor")
    return None


def _copy(path: Path, header: Header, content: memoryview) -> SegmentCopy:
    every = list(scan_frames(content, header.sequence))
    frames = tuple(frame for frame in every if frame.rows)
    whole = every[-1].end if every and len(content) == header.used else 0
    return SegmentCopy(path, header.facts, header.sequence, content, frames, whole)
