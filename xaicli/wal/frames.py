"""Write-ahead segments: the rows that are logged but not yet in a part.

A segment belongs to one (mode, ds_id, epoch) of one rank. After a header of `HEADER_BYTES` it holds frames: one a
batch, with its own CRC-32, its columns at fixed widths one after the other, texts as lengths followed by their bytes.
How many bytes of frames count is stored last, in one aligned 8-byte store: what a killed process had not finished does
not exist.

    header   magic 8s, sequence u64, used u64, length of the JSON u32, its crc32 u32, JSON {run_id, mode, ds_id, ...}
    frame    length u32, crc32 u32 of the payload (see `checksum_seed`), rows u32, plan u16, kind u16, step i64, payload
    payload  of a plan frame: JSON [[column, dtype], ...]; of a rows frame: the columns of that plan, each padded to
             8 bytes, then the texts' bytes, column by column
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from xaicli.layout import RunLayout

MAGIC = b"XAISEG1\n"
HEADER_BYTES = 4096
HEADER = struct.Struct("<8sQQII")
FRAME = struct.Struct("<IIIHHq")
USED_AT = 16
ALIGNMENT = 8

NULL_INT = -(2**31)
"""Stands for a missing label or prediction among int32 ones."""
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

    @classmethod
    def from_json(cls, text: bytes) -> SegmentFacts:
        facts = json.loads(text)
        return cls(**{key: facts[key] for key in cls.__dataclass_fields__})

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


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
    """A segment as it was at one moment; `content` is what follows the header."""

    facts: SegmentFacts
    sequence: int
    content: memoryview
    frames: tuple[Frame, ...]


def checksum_seed(rows: int, plan: int, step: int) -> int:
    """Where a frame's checksum starts from, so that it covers the header's fields too."""
    return (step + rows + plan) & 0xFFFFFFFF


def item_size(dtype: str) -> int:
    """Bytes of one value in the fixed part of a frame; a text's length takes 4."""
    base, width = storage(dtype)
    return base.itemsize * (width or 1)


def padded(size: int) -> int:
    """A size rounded up so that what follows is aligned."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def storage(dtype: str) -> tuple[np.dtype[Any], int]:
    """The numpy type of a column and how many values a row has: "float32[10]" has ten; 0 is one, without an axis."""
    if dtype.endswith("]"):
        base, _, width = dtype[:-1].partition("[")
        return np.dtype(base), int(width)
    return np.dtype(np.uint32 if dtype == "string" else dtype), 0


def scan_frames(content: memoryview, *, checked: bool) -> Iterator[Frame]:
    """The frames of a segment's used bytes, ending at the first that is not whole.

    Args:
        content: The bytes after the header, as far as they count.
        checked: Verify each frame's checksum.
    """
    plans: dict[int, tuple[tuple[str, str], ...]] = {}
    at = 0
    while at + FRAME.size <= len(content):
        length, crc, rows, plan, kind, step = FRAME.unpack_from(content, at)
        end = at + length
        if length < FRAME.size or end > len(content):
            return
        if checked and zlib.crc32(content[at + FRAME.size : end], checksum_seed(rows, plan, step)) != crc:
            return
        if kind == Kind.PLAN:
            text = bytes(content[at + FRAME.size : end]).rstrip(b" ")
            plans[plan] = tuple((name, dtype) for name, dtype in json.loads(text))
        elif plan in plans:
            yield Frame(at + FRAME.size, end, rows, step, plans[plan])
        at = end


def read_header(content: bytes | memoryview) -> tuple[SegmentFacts, int, int] | None:
    """(facts, sequence, used bytes) of a segment's first bytes; None where nothing in it counts."""
    if len(content) < HEADER_BYTES:
        return None
    magic, sequence, used, length, crc = HEADER.unpack_from(content)
    text = bytes(content[HEADER.size : HEADER.size + length])
    if magic != MAGIC or not used or zlib.crc32(text) != crc:
        return None
    try:
        return SegmentFacts.from_json(text), sequence, used
    except (ValueError, KeyError, TypeError):
        return None


def read_sequence(path: Path) -> int | None:
    """The number of the part that a segment's rows become, or became last; None where it is gone or new."""
    try:
        with path.open("rb") as file:
            magic, sequence, *_ = HEADER.unpack(file.read(HEADER.size))
    except (OSError, struct.error):
        return None
    return int(sequence) if magic == MAGIC else None


def segment_files(layout: RunLayout) -> list[Path]:
    """The segments of all ranks and attempts."""
    return sorted(layout.wal.glob("*.seg"))


def read_segment(path: Path) -> SegmentCopy | None:
    """A copy of a segment; None where it is empty, or was handed over while it was read.

    Every frame's checksum is verified: after power loss the size may be newer than the frames.
    """
    for _ in range(_READ_TRIES):
        try:
            with path.open("rb") as file:
                header = read_header(file.read(HEADER_BYTES))
                if header is None:
                    return None
                facts, sequence, used = header
                content = file.read(used)
                file.seek(0)
                after = read_header(file.read(HEADER_BYTES))
        except OSError:
            return None
        if after is not None and after[:2] == (facts, sequence):
            view = memoryview(content)
            return SegmentCopy(facts, sequence, view, tuple(scan_frames(view, checked=True)))
    return None
