"""Write-ahead segments: the rows that are logged but not yet in a part.

A segment belongs to one (mode, ds_id, epoch) of one rank. After a header of `HEADER_BYTES` it holds frames: one a
batch, with its own CRC-32, its columns at fixed widths one after the other, texts as lengths followed by their bytes.
How many bytes of frames count is stored last, in one aligned 8-byte store: what a killed process had not finished does
not exist.

    header   magic 8s, sequence u64, used u64, length of the JSON u32, its crc32 u32, JSON {run_id, mode, ds_id, ...}
    frame    length u32, crc32 u32 of what follows, rows u32, plan u16, kind u16, step i64, payload
    payload  of a plan frame: JSON [[column, dtype], ...]; of a rows frame: the columns of that plan in that order
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xaicli import vocabulary as words
from xaicli.layout import ColumnFacts, PartName, RunLayout

MAGIC = b"XAISEG1\n"
HEADER_BYTES = 4096
HEADER = struct.Struct("<8sQQII")
FRAME = struct.Struct("<IIIHHq")
CRC_FROM = 8
"""A frame's checksum covers what follows itself."""
USED_AT = 16
ALIGNMENT = 8

NULL_INT = -(2**31)
"""Stands for a missing label or prediction among int32 ones."""
NULL_LENGTH = 0xFFFFFFFF
"""Stands for a missing text among the lengths."""

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


def item_size(dtype: str) -> int:
    """Bytes of one value in the fixed part of a frame; a text's length takes 4."""
    return 4 if dtype == "string" else storage(dtype).itemsize


def storage(dtype: str) -> np.dtype[Any]:
    """The numpy type that holds a column: `float16[10]` is ten halves a row."""
    if dtype.startswith("float16["):
        return np.dtype((np.void, 2 * int(dtype[8:-1])))
    return np.dtype(np.uint32 if dtype == "string" else dtype)


def arrow_type(dtype: str) -> pa.DataType:
    """The type of a column in a part."""
    if dtype.startswith(("float16", "list")):
        return pa.list_(pa.float16())
    return {"float": pa.float32(), "double": pa.float64()}.get(dtype) or pa.type_for_alias(dtype)


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
        if checked and zlib.crc32(content[at + CRC_FROM : end]) != crc:
            return
        if kind == Kind.PLAN:
            text = bytes(content[at + FRAME.size : end]).rstrip(b" ")
            plans[plan] = tuple((name, dtype) for name, dtype in json.loads(text))
        elif plan in plans:
            yield Frame(at + FRAME.size, end, rows, step, plans[plan])
        at = end


def to_table(
    content: memoryview, frames: Sequence[Frame], facts: SegmentFacts, columns: Sequence[ColumnFacts]
) -> pa.Table:
    """The rows of a segment in the columns of a part, in the order they were logged.

    Args:
        content: The segment's bytes after the header.
        frames: Its frames.
        facts: Whose rows they are.
        columns: The run's columns; those the segment lacks are null.
    """
    pieces = [_piece(content, group, columns) for group in _same_plan(frames)]
    logged = pa.concat_tables(pieces) if pieces else None
    n = logged.num_rows if logged is not None else 0
    constant = {
        words.MODE: pa.scalar(facts.mode, pa.string()),
        words.DS_ID: pa.scalar(facts.ds_id, pa.string()),
        words.EPOCH: pa.scalar(facts.epoch, pa.int32()),
        words.ATTEMPT: pa.scalar(facts.attempt, pa.int16()),
        words.RANK: pa.scalar(facts.rank, pa.int16()),
    }
    arrays: dict[str, Any] = {}
    for column in columns:
        if column.name in constant:
            arrays[column.name] = pa.repeat(constant[column.name], n)
        elif logged is not None and column.name in logged.column_names:
            # Ranks may differ in which metrics they keep in double precision.
            arrays[column.name] = logged.column(column.name).cast(arrow_type(column.dtype))
        else:
            arrays[column.name] = pa.nulls(n, arrow_type(column.dtype))
    return pa.table(arrays)


def part_metadata(facts: SegmentFacts, sequence: int) -> dict[str, str]:
    """The footer key of a part."""
    known = {key: value for key, value in asdict(facts).items() if key != "boot_id"}
    return {"xai": json.dumps({"version": words.FORMAT_VERSION, **known, "sequence": sequence})}


def _same_plan(frames: Sequence[Frame]) -> Iterator[list[Frame]]:
    group: list[Frame] = []
    for frame in frames:
        if group and frame.columns is not group[0].columns and frame.columns != group[0].columns:
            yield group
            group = []
        group.append(frame)
    if group:
        yield group


def _piece(content: memoryview, frames: Sequence[Frame], columns: Sequence[ColumnFacts]) -> pa.Table:
    """The rows of frames that share a plan."""
    plan = frames[0].columns
    rows = [frame.rows for frame in frames]
    offsets = [frame.start for frame in frames]
    wanted = {column.name: column.dtype for column in columns}
    arrays: dict[str, pa.Array] = {}
    lengths: dict[str, NDArray[np.uint32]] = {}
    for name, dtype in plan:
        size = item_size(dtype)
        raw = b"".join([content[at : at + n * size] for at, n in zip(offsets, rows, strict=True)])
        offsets = [at + n * size for at, n in zip(offsets, rows, strict=True)]
        if dtype == "string":
            lengths[name] = np.frombuffer(raw, np.uint32)
        else:
            arrays[name] = _array(raw, dtype, nullable=name in (words.LABEL, words.PREDICTION))
    edges = np.concatenate([[0], np.cumsum(rows)])
    for name, each in lengths.items():
        present = np.where(each == NULL_LENGTH, 0, each)
        ends = np.concatenate([[0], np.cumsum(present, dtype=np.int64)])
        sizes = np.diff(ends[edges]).tolist()
        text = b"".join([content[at : at + size] for at, size in zip(offsets, sizes, strict=True)])
        offsets = [at + size for at, size in zip(offsets, sizes, strict=True)]
        arrays[name] = _texts(text, ends, each == NULL_LENGTH)
    steps = np.repeat(np.array([frame.step for frame in frames], np.int64), rows)
    arrays[words.STEP] = pa.array(steps)
    if words.CORRECT in wanted and words.CORRECT not in arrays and {words.LABEL, words.PREDICTION} <= arrays.keys():
        import pyarrow.compute as pc

        arrays[words.CORRECT] = pc.equal(arrays[words.LABEL], arrays[words.PREDICTION])
    return pa.table(arrays)


def _array(raw: bytes, dtype: str, *, nullable: bool) -> pa.Array:
    if dtype.startswith("float16["):
        width = int(dtype[8:-1])
        values = pa.array(np.frombuffer(raw, np.float16))
        return pa.FixedSizeListArray.from_arrays(values, width).cast(pa.list_(pa.float16()))
    values = np.frombuffer(raw, storage(dtype))
    return pa.array(values, mask=values == NULL_INT if nullable and dtype == "int32" else None)


def _texts(text: bytes, ends: NDArray[np.int64], absent: NDArray[np.bool_]) -> pa.Array:
    validity = pa.py_buffer(np.packbits(~absent, bitorder="little").tobytes())
    buffers = [validity, pa.py_buffer(ends.astype(np.int32).tobytes()), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), len(absent), buffers)


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


def is_stored(layout: RunLayout, facts: SegmentFacts, sequence: int) -> bool:
    """Whether a part or a compacted file holds a segment's rows already."""
    folder = layout.folder(facts.mode, facts.ds_id, facts.epoch)
    own = PartName(facts.attempt, facts.rank, sequence, sequence)
    try:
        names = [part for path in folder.iterdir() if (part := PartName.parse(path.name))]
    except OSError:
        return False
    return any(part == own or part.supersedes(own) for part in names)


def manifest_columns(columns: Mapping[str, str]) -> tuple[ColumnFacts, ...]:
    """The run's columns in the order of a part.

    Args:
        columns: {name: Arrow type} of the id, label, prediction, correct, probs and metrics seen so far, metrics in the
            order of their appearance.
    """
    fixed = {
        words.SAMPLE_ID: (columns.get(words.SAMPLE_ID, "int64"), words.Role.ID),
        words.MODE: ("string", words.Role.ORIGIN),
        words.DS_ID: ("string", words.Role.ORIGIN),
        words.EPOCH: ("int32", words.Role.TIME),
        words.STEP: ("int64", words.Role.TIME),
        words.ATTEMPT: ("int16", words.Role.ORIGIN),
        words.RANK: ("int16", words.Role.ORIGIN),
    }
    facts = [ColumnFacts(name, dtype, role.value) for name, (dtype, role) in fixed.items()]
    for name in (words.LABEL, words.PREDICTION, words.CORRECT):
        if name in columns:
            facts.append(ColumnFacts(name, columns[name], words.Role.LABEL.value))
    metrics = [name for name in columns if name not in words.RESERVED_COLUMNS]
    facts += [ColumnFacts(name, columns[name], words.Role.METRIC.value) for name in metrics]
    if words.PROBS in columns:
        facts.append(ColumnFacts(words.PROBS, columns[words.PROBS], words.Role.LABEL.value))
    return tuple(facts)
